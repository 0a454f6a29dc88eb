"""What a failure of the database means: whether its session can be used again, and what the reader can do."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import URL, exc

from jobtape.schemas.errors import DatabaseUnfit, ViewUnavailable

SHORTEST_SECRET: Final = 3
"""Characters of the shortest password that is removed from texts of drivers. A shorter one is part of many words."""

_NO_TABLES: Final = ("42P01", "3F000")
# The session waited, or had to give way to another one. It can be used again.
_BUSY: Final = ("55P03", "57014", "40P01")
_SQLITE_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REFUSED: Final = "unsupported startup parameter"
"""The answer of PgBouncer to a parameter that it does not pass on."""
_LOGIN: Final = ("28000", "28P01")


def ends_session(error: BaseException | None) -> bool:
    """Return whether to end the session in which the driver raised ``error``, and all older ones of its pool.

    A session keeps what it got when it began: read-only or not, the search path, the plans of its statements, the file
    that was there. So after a failure the next call begins a new one. Exceptions are failures that say nothing about
    the session: a lock, a time limit, or data that the database refuses.
    """
    if isinstance(error, sqlite3.Error):
        return not (isinstance(error, sqlite3.IntegrityError | sqlite3.DataError) or _is_locked(error))
    state = getattr(error, "sqlstate", None) or ""
    return state not in _BUSY and state[:2] not in ("22", "23")


def failure_of(error: Exception, url: URL, name: str, *, migrating: bool = False) -> ViewUnavailable:
    """Return the exception to raise for an error of a driver.

    Its text says in one line, without a password, what is wrong with the database ``name`` and what to do.
    ``migrating``: the error came while the tables were created.
    """
    text = _explain(error, url, name, migrating=migrating)
    return DatabaseUnfit(text) if _REFUSED in text else ViewUnavailable(text)


def _explain(error: Exception, url: URL, name: str, *, migrating: bool) -> str:
    if isinstance(error, exc.TimeoutError):
        return f"no connection to {name} became free in time: try again"
    driver_error = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    said = _without(url.password, str(driver_error).strip().partition("\n")[0])
    if url.drivername == "sqlite":
        return _explain_sqlite(driver_error, Path(url.database or "").absolute(), name, said, migrating=migrating)
    return _explain_postgresql(getattr(driver_error, "sqlstate", None) or "", name, said)


def _explain_postgresql(state: str, name: str, said: str) -> str:
    if state in _NO_TABLES or state == "42703":
        return _tables_are_wrong(name, said)
    if state in _BUSY:
        return f"the database {name} is locked or too busy: end what holds it, or try again ({said})"
    if state == "53100":
        return f"no room on the disk of the database {name}: free some space ({said})"
    if state == "25006":
        return (
            f"the database {name} accepts no writes: it is a standby, or default_transaction_read_only is on. Name the "
            f"primary in DATABASE_URL, or make it accept writes; each try begins a new session ({said})"
        )
    if state == "42501":
        return f"the user of the database {name} lacks a privilege: grant it ({said})"
    if state == "3D000" or ('database "' in said and "does not exist" in said):
        return f"there is no database {name}: create it, or correct DATABASE_URL ({said})"
    if state in _LOGIN or "authentication failed" in said:
        return f"the database {name} refuses the login: correct user and password in DATABASE_URL ({said})"
    if state.startswith("53") or "too many clients" in said or "too many connections" in said:
        return f"the database {name} has no room for another connection: raise max_connections ({said})"
    if _REFUSED in said:
        return (
            f"the pooler in front of the database {name} refuses a parameter of DATABASE_URL: leave it out, see "
            f"docs/reference/databases.md ({said})"
        )
    return f"the database {name} does not answer: is it running, and is DATABASE_URL right? ({said})"


def _explain_sqlite(error: Exception, path: Path, name: str, said: str, *, migrating: bool) -> str:
    if _is_locked(error):
        return f"the database {name} is locked or too busy: end what holds it, or try again ({said})"
    if "no such table" in said or "no such column" in said or "has no column" in said:
        return _tables_are_wrong(name, said)
    if "disk is full" in said or (isinstance(error, OSError) and error.errno == 28):
        return f"no room on the disk of the database {name}: free some space ({said})"
    if "not a database" in said:
        return f"the file of {name} is not a SQLite database: is DATABASE_URL right? Name another file ({said})"
    if (fault := _fault_of_path(path, name, migrating=migrating)) is not None:
        return f"{fault} ({said})"
    if "readonly" in said:
        return f"the file {path} cannot be written now: check its permissions and its disk ({said})"
    return f"the database {name} cannot be used: check its file, its disk and DATABASE_URL ({said})"


def _fault_of_path(path: Path, name: str, *, migrating: bool) -> str | None:
    """Return why this process cannot open or create the file; None when no reason is found."""
    todo = "is DATABASE_URL right? Name a file that this user may write"
    try:
        if path.is_dir():
            return f"{path} is a folder: is DATABASE_URL right? Name a file"
        if path.exists():
            able = _may(path, os.R_OK | os.W_OK) and _may(path.parent, os.W_OK | os.X_OK)
            return (
                None if able else f"this user may not write {path} and its folder: change their permissions, or {todo}"
            )
        folder = next(each for each in path.parents if each.exists() or each.is_symlink())
    except OSError as error:
        return f"{path} cannot be examined ({error.strerror}): {todo}"
    if not folder.is_dir():
        return f"{folder} is not a folder: {todo}"
    if not _may(folder, os.W_OK | os.X_OK):
        return (
            f"{path} is not there, and this user may not write the folder {folder}: change its permissions, or {todo}"
        )
    return None if migrating else no_tables(name)


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def no_tables(name: str) -> str:
    """Return the text for a database without tables."""
    return f"the database {name} has no tables yet: run `jobtape init`"


def _tables_are_wrong(name: str, said: str) -> str:
    if "alembic_version" in said:
        return f"{no_tables(name)} ({said})"
    return (
        f"the database {name} lacks a table or column: restore it, or let `jobtape init` create an empty one, "
        f"into which a projector folds the tape ({said})"
    )


def _is_locked(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return (code is not None and code & 0xFF in _SQLITE_BUSY) or "locked" in str(error)


def _without(password: object, said: str) -> str:
    secret = str(password or "")
    return said.replace(secret, "***") if len(secret) >= SHORTEST_SECRET else said
