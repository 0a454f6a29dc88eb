"""Reads single jobs: in the event loop where the database allows it, and otherwise together."""

import asyncio
from typing import TypeAlias

from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.reads import MAX_WAITING, Reads
from jobtape.schemas.job import Job
from jobtape.view.store import NotAtOnce, Store

_Wanted: TypeAlias = "list[tuple[str, asyncio.Future[Job | None]]]"


class JobReader:
    """Reads the jobs that are wanted while one read is going on with the next read.

    A change of threads and a statement cost more than reading a job does. Every read begins after it was asked for.
    """

    def __init__(self, store: Store, reads: Reads) -> None:
        self._store = store
        self._reads = reads
        self._wanted: _Wanted = []
        self._reading: asyncio.Task[None] | None = None

    async def job(self, job_id: str) -> Job | None:
        """Return the job, or None when the folded part of the tape has no event of it.

        Raises what ``Reads.call`` raises.
        """
        try:
            return self._store.quick.job(job_id)
        except NotAtOnce:
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
            jobs = await self._reads.call(self._store.jobs, {job_id for job_id, _ in wanted})
        except Exception as raised:  # noqa: BLE001 - the callers raise it
            error = raised
        for job_id, found in wanted:
            if found.done():  # its caller was cancelled
                continue
            if error is None:
                found.set_result(jobs.get(job_id))
            else:
                found.set_exception(error)
