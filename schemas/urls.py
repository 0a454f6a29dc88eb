"""URLs in messages and logs: without what is, or may be, a password.

A password that is not percent-encoded makes a URL that can be read in more than one way: what stands before a ``/`` in
it would be taken for a host, and be shown. Such a URL is refused where it is configured, and nowhere shown.
"""

import re
from typing import Final
from urllib.parse import urlsplit

HIDDEN: Final = "(not a URL)"
ENCODE: Final = "percent-encode what is special in the password (@ is %40, / %2F, ? %3F, # %23, : %3A, % %25)"

_USER: Final = re.compile(r"[^\s:/?#\[\]]*")
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]+")
_PATH: Final = re.compile(r"[^\s?#@]*")


def is_clear(url: str) -> bool:
    """Whether it is a URL with a host, in which no part but the password can be, or hold, one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number: the rest of a password, as a rule
        return False
    return (
        bool(parts.scheme)
        and url.partition(":")[2].startswith("//")
        # urlsplit takes them out without a word.
        and not re.search(r"\s", url)
        and port != 0
        and _USER.fullmatch(parts.username or "") is not None
        and _HOST.fullmatch(parts.hostname or "") is not None
        and _PATH.fullmatch(parts.path) is not None
        and not parts.fragment
        and "@" not in parts.query
    )


def without_password(url: str) -> str:
    """The URL as it may be shown: without password and parameters."""
    if not is_clear(url):
        return HIDDEN
    parts = urlsplit(url)
    _, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{parts.username or ''}{at}{host}{parts.path}"
