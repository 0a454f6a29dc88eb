"""Opening the database: one engine for reads, one for writes, and errors in our own words.

Reads are single statements in autocommit, so no connection goes back into the pool with a transaction open: on SQLite
a reader with an open cursor would go on seeing the old state. Writers on SQLite say ``BEGIN IMMEDIATE``, because a
transaction that first reads and then writes fails at once when another writes, whatever the busy timeout.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from jobtape import forks
from jobtape.schemas.errors import JobtapeError

Role = Literal["read", "write", "migrate"]

PATIENCE: Final = 5.0  # seconds to wait for a connection, a lock, and for the answer to a read
WRITE_LIMIT: Final = 60.0  # seconds that one statement of a write may take
MIGRATE_PATIENCE: Final = 120.0  # seconds to wait for another process that migrates
POOL_SIZE: Final = 5
POOL_OVERFLOW: Final = 5

# A server that vanished without a word is noticed in seconds, not after the kernel's hours.
_LIBPQ_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "jobtape",
    # A database in SQL_ASCII would otherwise give bytes back instead of text.
    "client_encoding": "utf8",
}


def parse_url(text: str) -> URL:
    """The database a ``DATABASE_URL`` names. Raises JobtapeError saying which forms there are."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Not the text itself: it may hold a password.
        raise JobtapeError(f"DATABASE_URL is no URL; {_FORMS}") from None
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if url.database in (None, "", ":memory:"):
            raise JobtapeError(f"the view needs a file, since several processes share it; {_FORMS}")
        return url.set(drivername="sqlite", query={})
    raise JobtapeError(f"DATABASE_URL begins with {url.drivername}:// ; {_FORMS}")


_FORMS: Final = "write sqlite:///path/to/file or postgresql://user:password@host/database"


def url_for_messages(url: URL) -> str:
    """The URL without password and parameters."""
    name = "sqlite" if url.drivername == "sqlite" else "postgresql"
    shown = URL.create(name, username=url.username, host=url.host, port=url.port, database=url.database)
    return shown.render_as_string()


def open_engine(url: URL, role: Role, patience: float = PATIENCE) -> Engine:
    """An engine that connects when first used. ``patience``: seconds to wait for a lock or a pooled connection.

    Only ``migrate`` makes a SQLite file that isn't there.
    """
    options: dict[str, Any] = {"hide_parameters": True}
    if role == "read":
        options["isolation_level"] = "AUTOCOMMIT"
    if role == "migrate":
        options["poolclass"] = NullPool
        patience = MIGRATE_PATIENCE
    else:
        options |= {"pool_size": POOL_SIZE, "max_overflow": POOL_OVERFLOW, "pool_timeout": patience}
    if url.drivername == "sqlite":
        engine = create_engine(url, creator=sqlite_opener(url, role, patience), **options)
        if role != "read":
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine
    defaults = {name: value for name, value in _LIBPQ_DEFAULTS.items() if name not in url.query}
    engine = create_engine(url, connect_args=defaults, pool_pre_ping=True, **options)
    event.listen(engine, "connect", _postgres_settings(role, patience))
    event.listen(engine, "connect", _leave_in_children)
    return engine


def sqlite_path(url: URL) -> Path:
    """The database's file, wherever the process goes later."""
    return Path(url.database or "").absolute()


def sqlite_opener(url: URL, role: Role, patience: float) -> Callable[[], sqlite3.Connection]:
    """What opens SQLite's file, with our settings."""
    path = sqlite_path(url)
    uri = f"{path.as_uri()}?mode={'rwc' if role == 'migrate' else 'rw'}"

    def opened() -> sqlite3.Connection:
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


def _leave_in_children(connection: Any, _record: Any) -> None:
    """Let no forked child keep a session open, and its locks, that this process has ended."""
    forks.in_child(connection, lambda shared: None if shared.closed else forks.close_here(shared.fileno()))


def _postgres_settings(role: Role, patience: float) -> Callable[[Any, Any], None]:
    statement = {"read": patience, "write": WRITE_LIMIT, "migrate": 0.0}[role]
    settings = (
        "SET TIME ZONE 'UTC'",
        f"SET statement_timeout = {round(statement * 1000)}",
        f"SET lock_timeout = {round(patience * 1000)}",
        # A writer frozen in the middle must not hold its locks for ever.
        "SET idle_in_transaction_session_timeout = 30000",
    )

    def connected(connection: Any, _record: Any) -> None:
        before = connection.autocommit
        connection.autocommit = True
        for setting in settings:
            connection.execute(setting)
        connection.autocommit = before

    return connected
