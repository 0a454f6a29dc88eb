"""The sessions and connections of a user, synchronous and asynchronous, as one thing."""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from jobtape.schemas.errors import JobtapeError
from jobtape.view.threads import DatabaseThreads

T = TypeVar("T")

DIALECTS: Final = ("sqlite", "postgresql")
SyncTransaction = Session | Connection
AsyncTransaction = AsyncSession | AsyncConnection


def is_async(given: object) -> bool:
    """Return whether ``given`` is an asynchronous session or connection, and not a synchronous one.

    Raises JobtapeError for anything else.
    """
    if isinstance(given, AsyncSession | AsyncConnection | async_scoped_session):
        return True
    if isinstance(given, Session | Connection | scoped_session):
        return False
    raise JobtapeError(
        f"this is a {type(given).__name__}, and a session or connection of SQLAlchemy is needed: Session, Connection, "
        "AsyncSession or AsyncConnection"
    )


def within(given: SyncTransaction, table: Table, use: Callable[[Connection], T]) -> T:
    """Return ``use(connection)``, with the connection of the transaction of ``given``, which begins if there is none.

    ``table``: what is used on it, for sessions that have several databases. Raises JobtapeError for a database that is
    not supported.
    """
    found: Any = given.registry() if isinstance(given, scoped_session) else given
    if isinstance(found, Session):
        found = found.connection(bind_arguments={"clause": table})
    if found.dialect.name not in DIALECTS:
        raise JobtapeError(f"{table.name} works in SQLite and PostgreSQL, not in {found.dialect.name}")
    return use(cast("Connection", found))


async def within_async(given: AsyncTransaction, table: Table, use: Callable[[Connection], T]) -> T:
    """Same as ``within``, for an asynchronous session or connection."""
    found: Any = given.registry() if isinstance(given, async_scoped_session) else given
    return cast("T", await found.run_sync(within, table, use))


class Transactions:
    """Runs transactions of a user's engine for an event loop: in a thread, or on the loop if it is asynchronous."""

    def __init__(self, engine: Engine | AsyncEngine) -> None:
        self._engine = engine
        self._threads = None if isinstance(engine, AsyncEngine) else DatabaseThreads("jobtape-outbox")

    async def run(self, use: Callable[..., T], *args: object) -> T:
        """Return ``use(connection, *args)`` of a transaction, which is committed at the end. Raises what it raises."""
        if isinstance(self._engine, AsyncEngine):
            async with self._engine.begin() as connection:
                return await connection.run_sync(use, *args)
        assert self._threads is not None
        return await self._threads.call(_in_transaction, self._engine, use, *args)

    async def close(self) -> None:
        """End the thread. The engine stays open."""
        if self._threads is not None:
            await self._threads.join()


def _in_transaction(engine: Engine, use: Callable[..., T], *args: object) -> T:
    with engine.begin() as connection:
        return use(connection, *args)
