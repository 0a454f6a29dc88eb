"""Opens the database: there are engines for reads, for writes and for migrations."""

import sqlite3
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, ExceptionContext, event
from sqlalchemy.pool import NullPool

from jobtape.view.sql import postgres, sqlite
from jobtape.view.sql.driver import DriverConnection, PostgresConnection, SqliteConnection
from jobtape.view.sql.failures import ends_session
from jobtape.view.sql.roles import MIGRATE_TIMEOUT, Role

POOL_SIZE: Final = 5
POOL_OVERFLOW: Final = 5


def open_engine(url: URL, role: Role, timeout: float = MIGRATE_TIMEOUT) -> Engine:
    """Return an engine, which connects at its first use. ``timeout``: seconds to wait for a lock or a connection.

    Only the role ``migrate`` creates a missing SQLite file.
    """
    options: dict[str, Any] = {"hide_parameters": True}
    if role in ("read", "fold"):
        options["isolation_level"] = "AUTOCOMMIT"
    if role == "migrate":
        options["poolclass"] = NullPool
    elif role == "fold":  # for the one thread that folds
        options |= {"pool_size": 1, "max_overflow": 0, "pool_timeout": timeout}
    else:
        options |= {"pool_size": POOL_SIZE, "max_overflow": POOL_OVERFLOW, "pool_timeout": timeout}
    opens = sqlite.open_engine if url.drivername == "sqlite" else postgres.open_engine
    engine = opens(url, role, timeout, options)
    event.listen(engine, "handle_error", _end_session)
    return engine


def begin_reading(connection: Connection) -> None:
    """Prepare a connection of a ``read`` engine for its statements."""
    if connection.dialect.name == "postgresql":
        postgres.begin_reading(connection)


def by_driver(connection: Connection) -> DriverConnection:
    """Return what executes statements of a connection of a ``driver`` engine."""
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        return SqliteConnection(driver)
    return PostgresConnection(connection.dialect, driver, postgres.settings_of_transaction(connection))


def end_failed(connection: Connection, error: Exception) -> None:
    """Do for an error of the driver what SQLAlchemy does for those of its statements."""
    if connection.dialect.name == "postgresql":
        postgres.end_read_only_session(connection, error)
    if ends_session(error):
        connection.invalidate(error)


def _end_session(context: ExceptionContext) -> None:
    """Let the pool replace the session that failed, and older ones, by new sessions."""
    if ends_session(context.original_exception):
        context.is_disconnect = True
