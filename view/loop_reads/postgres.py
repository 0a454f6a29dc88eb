"""Reads jobs on an event loop without a thread, and without blocking it. For PostgreSQL only.

Two changes of threads and the work of a pool cost more than the server's answer does. So one session belongs to the
event loop, which does other work until the answer comes. Whatever goes wrong, the caller reads in a thread then, with
the time limits and error messages of all other reads. Behind a pooler it always does: reads are transactions there.
"""

import asyncio
from collections.abc import Collection
from math import inf
from typing import Any, Final, NamedTuple

import psycopg

from jobtape.schemas.job import Job
from jobtape.view import tables
from jobtape.view.loop_reads.sqlite import NeedsThread
from jobtape.view.rows import job_from_driver
from jobtape.view.sql.database import StorePart
from jobtape.view.sql.driver import select_one_of

SLOW: Final = 0.5
"""Seconds after which the caller reads in a thread. So do the next ones, until this answer has come."""
PAUSE: Final = 1.0
"""Seconds from a failure until another session is opened."""

_JOBS: Final = select_one_of(tables.jobs.c.id).encode()

Driver = psycopg.Connection[Any]


class _Session(NamedTuple):
    """``driver`` owns the socket; ``waiting`` waits for it in ``loop``."""

    driver: Driver
    waiting: "psycopg.AsyncConnection[tuple[Any, ...]]"
    loop: asyncio.AbstractEventLoop


class AwaitedReads(StorePart):
    """Reads the view in one event loop, one read at a time."""

    _session: _Session | None = None
    _reading: "asyncio.Task[dict[str, Job] | None] | None" = None
    _not_before = 0.0

    def close(self) -> None:
        """Close the session. A later read needs another one."""
        session, self._session, self._reading = self._session, None, None
        if session is not None:
            session.driver.close()

    def needs_session(self) -> bool:
        """Return whether ``use`` has to be called before the next read in the running loop."""
        loop = asyncio.get_running_loop()
        needed = self._session is None or self._session.loop is not loop
        return needed and self.database.dialect == "postgresql" and loop.time() >= self._not_before

    def use(self, driver: Driver | None) -> None:
        """Read from now on in what ``Database.own_session`` returned, in the running loop; in threads if it is None."""
        self.close()
        if driver is None:
            self._not_before = inf
        else:
            # Like all sessions it was checked and set up in a thread. Only how its answers are awaited is different.
            waiting = psycopg.AsyncConnection(driver.pgconn)
            self._session = _Session(driver, waiting, asyncio.get_running_loop())

    async def jobs(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Return the jobs that are known, by id. Raises NeedsThread."""
        session = self._session
        if session is None or session.loop is not asyncio.get_running_loop() or self._reading is not None:
            raise NeedsThread
        self._reading = reading = session.loop.create_task(self._read(session, job_ids), name="read jobs")
        # It is not cancelled, which would mean to ask the server to. The session limits the time of a statement.
        await asyncio.wait({reading}, timeout=SLOW)
        found = reading.result() if reading.done() else None
        if found is None:
            raise NeedsThread
        return found

    async def _read(self, session: _Session, job_ids: Collection[str]) -> dict[str, Job] | None:
        """Return the jobs; None after an error, which ends the session."""
        try:
            cursor = await session.waiting.execute(_JOBS, [list(job_ids)])
            return {job.id: job for job in map(job_from_driver, await cursor.fetchall())}
        except psycopg.Error:
            if self._session is session:
                self.close()
                self._not_before = session.loop.time() + PAUSE
            return None
        finally:
            if self._session is session:
                self._reading = None
