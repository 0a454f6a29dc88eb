"""Reads jobs and new events on an event loop without a thread, and without blocking it. For PostgreSQL only.

Two changes of threads and the work of a pool cost more than the server's answer does. So one session belongs to the
event loop, which does other work until the answer comes. Whatever goes wrong, the caller reads in a thread then, with
the time limits and error messages of all other reads. Behind a pooler it always does: reads are transactions there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from math import inf
from typing import Any, Final, NamedTuple

import psycopg
from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql.psycopg import dialect as postgresql

from jobtape.schemas.job import Job
from jobtape.view import tables
from jobtape.view.loop_reads.sqlite import NeedsThread
from jobtape.view.rows import job_from_driver
from jobtape.view.sql.database import StorePart
from jobtape.view.sql.driver import encoded, python_values, select_one_of
from jobtape.view.subscribers.committed import NEWEST, CommittedEvent, newest_from_rows
from jobtape.view.values import HistoryRange

SLOW: Final = 0.5
"""Seconds after which the caller reads in a thread. So do the next ones, until this answer has come."""
PAUSE: Final = 1.0
"""Seconds from a failure until another session is opened."""

SMALL: Final = 16 * 1024
"""Bytes of an event, as it is stored, up to which the loop unpacks it."""

_JOBS: Final = select_one_of(tables.jobs.c.id).encode()
_DIALECT: Final[Dialect] = postgresql()  # type: ignore[no-untyped-call]
_EVENT: Final = NEWEST.selected_columns.keys().index("event")

Driver = psycopg.Connection[Any]
Rows = Sequence[Sequence[Any]]


class _Session(NamedTuple):
    """``driver`` owns the socket; ``waiting`` waits for it in ``loop``."""

    driver: Driver
    waiting: "psycopg.AsyncConnection[tuple[Any, ...]]"
    loop: asyncio.AbstractEventLoop


class AwaitedReads(StorePart):
    """Reads the view in one event loop, one read at a time."""

    _session: _Session | None = None
    _connecting = False
    _reading: "asyncio.Task[Rows | None] | None" = None
    _not_before = 0.0

    def close(self) -> None:
        """Close the session. A later read needs another one."""
        session, self._session, self._reading = self._session, None, None
        if session is not None:
            session.driver.close()

    async def connect(self, in_thread: Callable[[Callable[[], Driver | None]], Awaitable[Driver | None]]) -> None:
        """Open a session for the running loop if it needs and can have one. ``in_thread``: calls it in a thread."""
        if self._connecting or not self._needs_session():
            return
        wanted = self._connecting = True

        def opened() -> Driver | None:
            driver = self.database.own_session()
            if driver is not None and not wanted:
                driver.close()
            return driver

        try:
            self._use(await in_thread(opened))
        finally:
            # A call in a thread goes on when its caller has given up.
            wanted = self._connecting = False

    async def jobs(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Return the jobs that are known, by id. Raises NeedsThread."""
        return {job.id: job for job in map(job_from_driver, await self._rows(_JOBS, [list(job_ids)]))}

    async def newest(self, after: int, limit: int) -> tuple[HistoryRange, Sequence[CommittedEvent]]:
        """Return what ``CommittedHistory.newest`` does. Raises NeedsThread, also for events that are not small."""
        rows = await self._rows(*encoded(NEWEST, _DIALECT, {"after": after, "count": limit}))
        if any(len(row[_EVENT] or b"") > SMALL for row in rows):
            raise NeedsThread
        return newest_from_rows(python_values(rows, NEWEST, _DIALECT))

    def _needs_session(self) -> bool:
        loop = asyncio.get_running_loop()
        needed = self._session is None or self._session.loop is not loop
        return needed and self.database.dialect == "postgresql" and loop.time() >= self._not_before

    def _use(self, driver: Driver | None) -> None:
        """Read from now on in ``driver``; in threads if it is None."""
        self.close()
        if driver is None:
            self._not_before = inf
        else:
            # Like all sessions it was checked and set up in a thread. Only how its answers are awaited is different.
            waiting = psycopg.AsyncConnection(driver.pgconn)
            self._session = _Session(driver, waiting, asyncio.get_running_loop())

    async def _rows(self, query: bytes, parameters: Any) -> Rows:
        """Return the rows as the driver returns them. Raises NeedsThread."""
        session = self._session
        if session is None or session.loop is not asyncio.get_running_loop() or self._reading is not None:
            raise NeedsThread
        self._reading = reading = session.loop.create_task(self._read(session, query, parameters), name="read the view")
        # It is not cancelled, which would mean to ask the server to. The session limits the time of a statement.
        await asyncio.wait({reading}, timeout=SLOW)
        found = reading.result() if reading.done() else None
        if found is None:
            raise NeedsThread
        return found

    async def _read(self, session: _Session, query: bytes, parameters: Any) -> Rows | None:
        """Return the rows; None after an error, which ends the session."""
        try:
            return await (await session.waiting.execute(query, parameters)).fetchall()
        except psycopg.Error:
            if self._session is session:
                self.close()
                self._not_before = session.loop.time() + PAUSE
            return None
        finally:
            if self._session is session:
                self._reading = None
