"""Reads ``DATABASE_URL`` and never shows its password, even when it is malformed.

A password with an ``@`` that is not percent-encoded would be divided, and its second half would become the host, which
error messages name. So a URL that may contain the rest of a password is refused, with a message that quotes nothing.
"""

import re
from collections.abc import Mapping
from typing import Final

from psycopg import pq
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from jobtape.schemas.errors import JobtapeError

FORMS: Final = "write sqlite:///path/to/file or postgresql://user:password@host/database"
ENCODE: Final = "percent-encode special characters of the password (@ is %40, / %2F, ? %3F, # %23, : %3A, % %25)"

_HOST: Final = re.compile(r"[A-Za-z0-9_.,:%/~-]*")
_KEYWORDS: Final = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
"""The parameters that libpq knows."""
_OTHERS: Final = ("cockroachdb", "mariadb", "mssql", "mysql", "oracle", "sqlite")
_PARAMETER: Final = re.compile(r"[a-z_]+")
_OTHER_DRIVERS: Final = (
    "async_fallback",
    "max_cacheable_statement_size",
    "max_cached_statement_lifetime",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "statement_cache_size",
)
"""Parameters of asyncpg that do not select or change a database."""
_SSL_MODES: Final = {"true": "require", "1": "require", "false": "disable", "0": "disable"}


def parse_url(text: str, variable: str = "DATABASE_URL") -> URL:
    """Parse a ``DATABASE_URL``, or the value of another ``variable``, and replace the driver in it by ours.

    Raises JobtapeError, which describes the valid forms.
    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise JobtapeError(f"{variable} is not a URL; {FORMS}, and {ENCODE}") from None
    database, _, driver = url.drivername.lower().partition("+")
    if database in ("postgresql", "postgres"):
        if not _is_clear(url, text):
            raise JobtapeError(f"{variable} is ambiguous; {FORMS}, and {ENCODE}")
        return url.set(drivername="postgresql+psycopg", query=_libpq_parameters(url.query, variable))
    if database != "sqlite" or "cipher" in driver:
        # An unknown scheme may be the beginning of a password.
        kind = f"begins with {url.drivername}" if database in _OTHERS else "is of another kind"
        raise JobtapeError(f"{variable} {kind}, and only SQLite and PostgreSQL are supported; {FORMS}")
    if url.host:
        raise JobtapeError(f"{variable} has a host (or two slashes instead of three), and SQLite has none; {FORMS}")
    if url.database in (None, "", ":memory:"):
        raise JobtapeError(f"{variable} needs a file, since several processes share it; {FORMS}")
    return url.set(drivername="sqlite", query={})


def _libpq_parameters(query: Mapping[str, str | tuple[str, ...]], variable: str) -> dict[str, str | tuple[str, ...]]:
    """Return the parameters behind the ``?`` as libpq expects them. Raises JobtapeError for an unknown one."""
    found: dict[str, str | tuple[str, ...]] = {}
    for name, value in query.items():
        if name == "ssl" and isinstance(value, str):
            found["sslmode"] = _SSL_MODES.get(value.lower(), value)
        elif name in _KEYWORDS:
            found[name] = value
        elif name not in _OTHER_DRIVERS:
            raise JobtapeError(
                f"{variable} has the parameter {name}, which libpq, PostgreSQL's library, does not know: leave it "
                "out, or use a parameter of libpq (sslmode, connect_timeout, options, …)"
            )
    return found


def url_for_messages(url: URL) -> str:
    """Return the URL without password and parameters."""
    name = "sqlite" if url.drivername == "sqlite" else "postgresql"
    shown = URL.create(name, username=url.username, host=url.host, port=url.port, database=url.database)
    return shown.render_as_string()


def _is_clear(url: URL, text: str) -> bool:
    """Return whether user, host, database and parameters cannot contain a part of a password."""
    rest = text.partition("://")[2]
    if url.password is not None:
        rest = rest.partition(":")[2].partition("@")[2]
    asked = [part for part in rest.partition("?")[2].split("&") if part]
    return (
        not re.search(r"[?#\s]", url.username or "")
        and _HOST.fullmatch(url.host or "") is not None
        and not re.search(r"[@#\s]", url.database or "")
        # SQLAlchemy skips a parameter without a value, which may be the rest of a password.
        and all(_PARAMETER.fullmatch(part.partition("=")[0]) and "=" in part and "@" not in part for part in asked)
    )
