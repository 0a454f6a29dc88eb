"""Connections to a SQLite file.

Reads are single statements in autocommit, so no connection returns to the pool with an open transaction, in which it
would still see the old state. Writes use ``BEGIN IMMEDIATE``: a transaction that first reads and then writes fails at
once while another one writes, without the busy timeout.

A process that has a file open can use it even when it was deleted or replaced. So each time a connection is taken from
the pool, it is compared with the file that is there now.
"""

import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

from jobtape.schemas.errors import DatabaseUnfit
from jobtape.view.sql.roles import Role

OLDEST: Final = (3, 35)
"""The first version with RETURNING."""
_FILE: Final = "file"


def open_engine(url: URL, role: Role, timeout: float, options: dict[str, Any]) -> Engine:
    """See ``view.sql.engine.open_engine``. ``options``: SQLAlchemy's."""
    path = path_of(url)
    engine = create_engine(url, creator=partial(connect, path, role, timeout), **options)
    if role in ("write", "migrate"):
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    def connected(_connection: Any, record: Any) -> None:
        record.info[_FILE] = identity(path)

    def taken(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info.get(_FILE) != identity(path):
            raise InvalidatePoolError(f"the file {path} was replaced")

    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", taken)
    event.listen(engine, "handle_error", _roll_back)
    return engine


def _roll_back(context: ExceptionContext) -> None:
    """End a failed transaction at once. A closed connection keeps its transaction, and with it the write lock, as long
    as a statement of it exists, for example in the traceback of the error.
    """
    connection = context.connection
    if connection is not None and not connection.invalidated:
        driver = connection.connection.dbapi_connection
        if driver is not None:
            with suppress(sqlite3.Error):
                driver.rollback()


def path_of(url: URL) -> Path:
    """Return the absolute path of the file, so that the working directory may change later."""
    return Path(url.database or "").absolute()


def connect(path: Path, role: Role, timeout: float) -> sqlite3.Connection:
    """Open the file with our settings."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise DatabaseUnfit(
            f"SQLite {sqlite3.sqlite_version} is too old, at least 3.35 is needed: use a newer Python, or "
            "PostgreSQL with DATABASE_URL"
        )
    uri = f"{path.as_uri()}?mode={'rwc' if role == 'migrate' else 'rw'}"
    # The pool gives a connection to one thread at a time, but not always to the same one.
    connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
    # With a write-ahead log, a power failure loses at most the newest commits, each with its checkpoint.
    connection.execute("PRAGMA synchronous=NORMAL")
    if role == "read":
        connection.execute("PRAGMA query_only=ON")
    else:
        # Fewer and longer checkpoints: 16 MB of log instead of 4 MB. And 32 MB of cached pages for the indexes.
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        connection.execute("PRAGMA cache_size=-32768")
    return connection


def identity(path: Path) -> tuple[int, int] | None:
    """Return what identifies the file at ``path``, also after it was replaced; None when there is none."""
    with suppress(OSError):
        found = path.stat()
        return (found.st_dev, found.st_ino)
    return None
