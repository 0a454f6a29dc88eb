"""Connections to a SQLite file.

Reads are single statements in autocommit, so no connection goes back into the pool with a transaction open: a reader
with an open cursor would go on seeing the old state. Writers say ``BEGIN IMMEDIATE``, because a transaction that first
reads and then writes fails at once when another writes, whatever the busy timeout.

A file that is deleted or replaced lives on for those who have it open. So whoever takes a connection from the pool
makes sure that it is of the file which is there now.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

from jobtape.schemas.errors import DatabaseUnfit
from jobtape.view.sql.roles import Role

OLDEST: Final = (3, 35)
"""The first version that has RETURNING."""
_FILE: Final = "file"


def open_engine(url: URL, role: Role, patience: float, options: dict[str, Any]) -> Engine:
    """As ``view.sql.engine.open_engine``; ``options`` are SQLAlchemy's."""
    path = path_of(url)
    engine = create_engine(url, creator=opener(url, role, patience), **options)
    if role != "read":
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    def connected(_connection: Any, record: Any) -> None:
        record.info[_FILE] = _identity(path)

    def taken(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info.get(_FILE) != _identity(path):
            raise InvalidatePoolError(f"the file {path} was replaced")

    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", taken)
    event.listen(engine, "handle_error", _roll_back)
    return engine


def _roll_back(context: ExceptionContext) -> None:
    """End the transaction of a failure now. A connection that is closed while somebody still has a statement of it, as
    the error's traceback may, keeps its transaction, and so the lock of SQLite's one writer.
    """
    connection = context.connection
    if connection is not None and not connection.invalidated:
        driver = connection.connection.dbapi_connection
        if driver is not None:
            with suppress(sqlite3.Error):
                driver.rollback()


def path_of(url: URL) -> Path:
    """The database's file, wherever the process goes later."""
    return Path(url.database or "").absolute()


def opener(url: URL, role: Role, patience: float) -> Callable[[], sqlite3.Connection]:
    """What opens the file, with our settings."""
    path = path_of(url)
    uri = f"{path.as_uri()}?mode={'rwc' if role == 'migrate' else 'rw'}"

    def opened() -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < OLDEST:
            raise DatabaseUnfit(
                f"SQLite {sqlite3.sqlite_version} is too old, 3.35 is the oldest that will do: use a newer Python, or "
                "PostgreSQL by DATABASE_URL"
            )
        # The pool hands a connection to one thread at a time, though not always to the same.
        connection = sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)
        # With a write-ahead log this loses at most the newest commits in a power cut, the checkpoint among them.
        connection.execute("PRAGMA synchronous=NORMAL")
        if role == "read":
            connection.execute("PRAGMA query_only=ON")
        else:
            # Fewer, longer checkpoints: 16 MB of log instead of 4, and 32 MB of pages kept for the indexes.
            connection.execute("PRAGMA wal_autocheckpoint=4000")
            connection.execute("PRAGMA cache_size=-32768")
        return connection

    return opened


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = path.stat()
        return (found.st_dev, found.st_ino)
    return None
