"""Reads the files of the dashboard, and makes the page that loads them."""

import gzip
import hashlib
import posixpath
import re
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

FOLDER: Final = "static"
PAGE: Final = "index.html"
START: Final = "app.js"
HOME: Final = "pages/overview.js"
"""What ``START`` shows first."""
TYPES: Final = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Not those of ``mimetypes``, which reads files of the machine."""
VENDOR: Final = "vendor/"
"""Files of others: they keep their licences, and are the same bytes as where they come from."""
_COMMENT: Final = re.compile(rb"^[ \t]*(?:/\*(?:(?!\*/).)*\*/[ \t]*|//[^\n]*)$", re.MULTILINE | re.DOTALL)
"""A comment that has its lines to itself: no string of the dashboard has such a line."""
_IMPORT: Final = re.compile(r'(?:from|^import)\s*"(\.[^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Asset:
    """A file as browsers get it."""

    content: bytes
    media_type: str

    @cached_property
    def compressed(self) -> bytes:
        """The content compressed with gzip, always the same bytes for the same content."""
        return gzip.compress(self.content, 9, mtime=0)

    @cached_property
    def etag(self) -> str:
        """The entity tag: it changes with the content."""
        return f'"{_digest(self.content)}"'


@dataclass(frozen=True)
class Assets:
    """All files by their path below ``static``, without the page.

    ``version`` changes when any file changes. It is part of each file's URL, so that browsers can keep files forever,
    and never mix modules of two versions.
    """

    page: Asset
    files: dict[str, Asset]
    version: str


def read_assets() -> Assets:
    """Return the dashboard's files."""
    found = _read(resources.files(__package__) / FOLDER)
    template = found.pop(PAGE).content
    version = _digest(*(part for path, asset in sorted(found.items()) for part in (path.encode(), asset.content)))
    base = f"dashboard/{version}/"
    # A browser knows what a module imports when it has it: without these lines each level of imports is a round trip.
    early = sorted(_imported(START, found) | _imported(HOME, found))
    preloads = [f'<link rel="modulepreload" href="{base}{escape(path)}">' for path in early]
    page = template.replace(b"{base}", base.encode()).replace(b"{preloads}", "\n".join(preloads).encode())
    return Assets(Asset(page, TYPES[".html"]), found, version)


def _imported(start: str, files: dict[str, Asset]) -> set[str]:
    """Return the module ``start`` and all that it imports, without those that a page imports when it is shown."""
    seen: set[str] = set()
    left = [start]
    while left:
        if (path := left.pop()) not in seen:
            seen.add(path)
            names = _IMPORT.findall(files[path].content.decode())
            left += [posixpath.normpath(posixpath.join(posixpath.dirname(path), name)) for name in names]
    return seen


def _read(folder: Traversable, prefix: str = "") -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    for entry in folder.iterdir():
        path = prefix + entry.name
        if entry.is_dir():
            found |= _read(entry, f"{path}/")
        elif (media_type := TYPES.get(path[path.rfind(".") :])) is not None:
            content = entry.read_bytes()
            found[path] = Asset(content if path.startswith(VENDOR) else _without_comments(content), media_type)
    return found


def _without_comments(content: bytes) -> bytes:
    """Return a file's content with empty lines for comments, an eighth of a first visit: lines keep their numbers."""
    return _COMMENT.sub(lambda comment: b"\n" * comment[0].count(b"\n"), content)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
