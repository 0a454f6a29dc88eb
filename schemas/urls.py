"""Removes passwords from URLs for messages and logs.

A URL whose password is not percent-encoded is ambiguous: the part of the password before a ``/`` would be taken for the
host and be shown. Such a URL is refused in the configuration, and never shown.
"""

import re
from typing import Final
from urllib.parse import urlsplit

HIDDEN: Final = "(not a URL)"
ENCODE: Final = "percent-encode special characters in the password (@ is %40, / %2F, ? %3F, # %23, : %3A, % %25)"

_NEXT: Final = re.compile(r",(?=\s*[a-z]+://)")
_USER: Final = re.compile(r"[^\s:/?#\[\]]*")
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]+")
_PATH: Final = re.compile(r"[^\s?#@]*")


def each_url(urls: str) -> list[str]:
    """Return the URL of each host of ``scheme://user:password@one:5672,other:5672/path``, or of each URL in a list that
    is separated by commas, in their order.
    """
    if "," not in urls:
        return [urls]
    found = []
    for url in _NEXT.split(urls):
        scheme, _, rest = url.strip().partition("://")
        end = min((i for i in (rest.find(each, rest.rfind("@") + 1) for each in "/?#") if i >= 0), default=len(rest))
        user, at, hosts = rest[:end].rpartition("@")
        found += [f"{scheme}://{user}{at}{host.strip()}{rest[end:]}" for host in hosts.split(",")]
    return found


def is_unambiguous(url: str) -> bool:
    """Return whether ``url`` has a host, and no part but the password can contain a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # the port is no number: usually the rest of a password
        return False
    return (
        bool(parts.scheme)
        and url.partition(":")[2].startswith("//")
        # urlsplit removes white space silently.
        and not re.search(r"\s", url)
        and port != 0
        and _USER.fullmatch(parts.username or "") is not None
        and _HOST.fullmatch(parts.hostname or "") is not None
        and _PATH.fullmatch(parts.path) is not None
        and not parts.fragment
        and "@" not in parts.query
    )


def without_password(url: str) -> str:
    """Return ``url`` without password and parameters, to be shown."""
    if not is_unambiguous(url):
        return HIDDEN
    parts = urlsplit(url)
    _, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{parts.username or ''}{at}{host}{parts.path}"
