"""Reads the view, which blocks, without blocking the event loop."""

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from jobtape.producer.service.errors import TooBusy
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.job import Job
from jobtape.view.store import NeedsThread, Store
from jobtape.view.threads import DatabaseThreads

T = TypeVar("T")

MAX_WAITING: Final = 2000
_Wanted: TypeAlias = "list[tuple[str, asyncio.Future[Job | None]]]"


class ViewCalls:
    """Calls the view in threads: ``threads`` calls run at once, further ones wait their turn; each is given ``limit``
    seconds, the wait included.

    A call that takes longer goes on in its thread (it cannot be stopped) until the database's own limits end it.
    """

    def __init__(self, name: str, *, threads: int, limit: float) -> None:
        self._make_threads = partial(DatabaseThreads, name, threads)
        self._threads = self._make_threads()
        self._limit = limit
        self._waiting = 0

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return what ``function`` returns or raises. Raises ViewUnavailable after the limit, TooBusy when too many
        wait.
        """
        if self._waiting >= MAX_WAITING:
            raise TooBusy(f"{MAX_WAITING} reads of the view are waiting already: try again in a moment")
        future = self._threads.call(function, *args)
        # If the caller is gone, nobody else reads its error, and asyncio would log it.
        future.add_done_callback(_forget)
        self._waiting += 1
        try:
            await asyncio.wait({future}, timeout=self._limit)
        finally:
            self._waiting -= 1
            if not future.done():
                future.cancel()
        if future.cancelled():
            raise ViewUnavailable(f"the view did not answer within {self._limit:g} s: is the database busy or away?")
        return future.result()

    async def close(self) -> None:
        """End the threads, and wait for calls that are running. A later call gets new threads."""
        threads, self._threads = self._threads, self._make_threads()
        await threads.join()


class JobReader:
    """Reads the jobs that are wanted while one read is going on with the next read.

    A change of threads and a statement cost more than reading a job does. Every read begins after it was asked for.
    """

    def __init__(self, store: Store, reads: ViewCalls) -> None:
        self._store = store
        self._reads = reads
        self._wanted: _Wanted = []
        self._reading: asyncio.Task[None] | None = None

    async def job(self, job_id: str) -> Job | None:
        """Return the job, or None when the folded part of the tape has no event of it.

        Raises what ``ViewCalls.call`` raises.
        """
        try:
            return self._store.quick.job(job_id)
        except NeedsThread:
            pass
        if len(self._wanted) >= MAX_WAITING:
            raise TooBusy(f"{MAX_WAITING} reads of the view are waiting already: try again in a moment")
        found: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._wanted.append((job_id, found))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_wanted(), name="read jobs")
        return await found

    async def _read_wanted(self) -> None:
        try:
            while wanted := self._wanted:
                self._wanted = []
                await self._read(wanted)
        finally:
            self._reading = None

    async def _read(self, wanted: _Wanted) -> None:
        error: BaseException | None = None
        jobs: dict[str, Job] = {}
        try:
            jobs = await self._jobs({job_id for job_id, _ in wanted})
        except Exception as raised:  # noqa: BLE001 - the callers raise it
            error = raised
        for job_id, found in wanted:
            if found.done():  # its caller was cancelled
                continue
            if error is None:
                found.set_result(jobs.get(job_id))
            else:
                found.set_exception(error)

    async def _jobs(self, job_ids: Collection[str]) -> dict[str, Job]:
        reads = self._store.awaited
        try:
            await reads.connect(self._reads.call)
            return await reads.jobs(job_ids)
        except NeedsThread:
            return await self._reads.call(self._store.jobs, job_ids)


def _forget(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
