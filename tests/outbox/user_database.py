"""A user's database with outbox, inbox and a table of its own, for synchronous and asynchronous code."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from jobtape import inbox_table, outbox_table
from jobtape.jobs import JobType
from jobtape.schemas.job import Job
from jobtape.view.sql.urls import parse_url

PATIENCE: Final = 120
"""Seconds for which a transaction waits until the others have written. SQLite gives no turns: with 20 at once and a
commit of some 20 ms, one of them may wait as long as all others together take."""

metadata = MetaData()
outbox = outbox_table(metadata)
inbox = inbox_table(metadata)
orders = Table(
    "orders", metadata, Column("id", Integer, primary_key=True), Column("n", Integer), Column("job_id", String(36))
)

Kind = Literal["session", "connection", "async session", "async connection"]
KINDS: tuple[Kind, ...] = ("session", "connection", "async session", "async connection")


@dataclass(frozen=True)
class UserDatabase:
    """Both engines of one database."""

    engine: Engine
    async_engine: AsyncEngine

    @asynccontextmanager
    async def transaction(self, kind: Kind) -> AsyncIterator[Any]:
        """Open a transaction, which is committed at the end and rolled back on any error."""
        match kind:
            case "session":
                with Session(self.engine) as session, session.begin():
                    yield session
            case "connection":
                with self.engine.begin() as connection:
                    yield connection
            case "async session":
                async with AsyncSession(self.async_engine) as async_session, async_session.begin():
                    yield async_session
            case "async connection":
                async with self.async_engine.begin() as async_connection:
                    yield async_connection

    def rows(self, table: Table) -> int:
        """Return how many rows a table has."""
        with self.engine.begin() as connection:
            return connection.scalar(select(func.count()).select_from(table)) or 0


async def submit(given: Any, kind: Kind, job_type: JobType, /, **payload: Any) -> Job:
    """Submit a job in a transaction of any kind."""
    if kind.startswith("async"):
        return await job_type.submit_in(given, **payload)
    return job_type.submit_in_sync(given, **payload)


@contextmanager
def user_database(url: str) -> Iterator[UserDatabase]:
    """Create the tables in a database, and give its engines for the block."""
    parsed = parse_url(url)
    engine = create_engine(parsed, connect_args={"timeout": PATIENCE} if parsed.drivername == "sqlite" else {})
    metadata.create_all(engine)
    yield UserDatabase(engine, async_engine_for(url))
    engine.dispose()


def async_engine_for(url: str) -> AsyncEngine:
    """Return an asynchronous engine for a URL without a driver, or with a synchronous one."""
    parsed = parse_url(url)
    if parsed.drivername != "sqlite":
        return create_async_engine(parsed)
    engine = create_async_engine(parsed.set(drivername="sqlite+aiosqlite"))
    event.listen(
        engine.sync_engine, "connect", lambda opened, _: opened.execute(f"PRAGMA busy_timeout = {1000 * PATIENCE}")
    )
    return engine
