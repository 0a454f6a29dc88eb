"""Reads ``DATABASE_URL``, and never shows a password of it, also where it is malformed.

A password with an ``@`` that is not percent-encoded would be cut in two, and its second half taken for the host, which
every message names. So whatever may be the rest of a password is refused, without a word of what was given.
"""

import re
from typing import Final

from psycopg import pq
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from jobtape.schemas.errors import JobtapeError

FORMS: Final = "write sqlite:///path/to/file or postgresql://user:password@host/database"
ENCODE: Final = "percent-encode what is special in the password (@ is %40, / %2F, ? %3F, # %23, : %3A, % %25)"

_HOST: Final = re.compile(r"[A-Za-z0-9_.,:%/~-]*")
_KEYWORDS: Final = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
"""The parameters that libpq knows."""


def parse_url(text: str) -> URL:
    """The database a ``DATABASE_URL`` names. Raises JobtapeError saying which forms there are."""
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise JobtapeError(f"DATABASE_URL is no URL; {FORMS}, and {ENCODE}") from None
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        if not _is_clear(url, text):
            raise JobtapeError(f"DATABASE_URL cannot be read without doubt; {FORMS}, and {ENCODE}")
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if url.database in (None, "", ":memory:"):
            raise JobtapeError(f"the view needs a file, since several processes share it; {FORMS}")
        return url.set(drivername="sqlite", query={})
    raise JobtapeError(f"DATABASE_URL is of another kind of database; {FORMS}")


def url_for_messages(url: URL) -> str:
    """The URL without password and parameters."""
    name = "sqlite" if url.drivername == "sqlite" else "postgresql"
    shown = URL.create(name, username=url.username, host=url.host, port=url.port, database=url.database)
    return shown.render_as_string()


def _is_clear(url: URL, text: str) -> bool:
    """Whether user, host, database and parameters can be nothing of a password."""
    rest = text.partition("://")[2]
    if url.password is not None:
        rest = rest.partition(":")[2].partition("@")[2]
    asked = [part for part in rest.partition("?")[2].split("&") if part]
    return (
        not re.search(r"[?#\s]", url.username or "")
        and _HOST.fullmatch(url.host or "") is not None
        and not re.search(r"[@#\s]", url.database or "")
        # SQLAlchemy passes over a parameter without a value, which may be the rest of a password.
        and all(part.partition("=")[0] in _KEYWORDS and "=" in part for part in asked)
    )
