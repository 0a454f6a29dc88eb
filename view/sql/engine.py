"""Opening the database: one engine for reads, one for writes, one for migrations."""

from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, ExceptionContext, event
from sqlalchemy.pool import NullPool

from jobtape.view.sql import postgres, sqlite
from jobtape.view.sql.failures import ends_session
from jobtape.view.sql.roles import MIGRATE_PATIENCE, PATIENCE, Role

POOL_SIZE: Final = 5
POOL_OVERFLOW: Final = 5


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
    opens = sqlite.open_engine if url.drivername == "sqlite" else postgres.open_engine
    engine = opens(url, role, patience, options)
    event.listen(engine, "handle_error", _end_session)
    return engine


def begin_reading(connection: Connection) -> None:
    """Make ready for statements that read, on a connection of an engine for reading."""
    if connection.dialect.name == "postgresql":
        postgres.begin_reading(connection)


def _end_session(context: ExceptionContext) -> None:
    """Let the pool replace the session of a failure, and those that are older, by new ones."""
    if ends_session(context.original_exception):
        context.is_disconnect = True
