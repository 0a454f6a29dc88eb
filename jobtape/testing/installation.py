"""A whole installation in this process, as a test sees it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import httpx
from pydantic_core import to_jsonable_python

from jobtape.broker.confirmed_channel import unconfirmed
from jobtape.jobs import JobType
from jobtape.process import clock
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.events import JobEvent, decode
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.job_types.schedules import schedules_to_sync
from jobtape.subscribing import subscribe
from jobtape.testing.broker.broker import MemoryBroker
from jobtape.testing.loop import LoopThread
from jobtape.testing.parts import POLL, Parts
from jobtape.testing.transport import BASE_URL, LoopTransport, api_for
from jobtape.view.store import JobQuery

DRAIN_TIMEOUT: Final = 30.0
"""Seconds that ``drain`` waits for the handlers, by default."""
MOST: Final = 10_000
"""Jobs that ``jobs`` returns at most."""
_ONLY_IN_MEMORY: Final = "only the broker in memory can do this: use `memory(...)`, or --jobtape=memory"


class Installation:
    """Producer, projector and worker on an event loop in another thread; ``memory`` opens it.

    Jobs are recorded at once, and run while ``drain`` or ``advance`` is called. ``settings`` are those of all parts.
    """

    def __init__(
        self, thread: LoopThread, parts: Parts, job_types: Mapping[str, JobType], broker: MemoryBroker | None
    ) -> None:
        self.settings = parts.settings
        self._thread = thread
        self._parts = parts
        self._job_types = job_types
        self._broker = broker
        self._worker_must_change = False

    def __getitem__(self, job: str | Job) -> Job:
        """Return a job, by its id or as it was, as the view has it now. Raises KeyError."""
        job_id = job if isinstance(job, str) else job.id
        self._fold()
        found = self._parts.store.job(job_id)
        if found is None:
            raise KeyError(f"there is no job {job_id}")
        return found

    def jobs(self, job_type: JobType[Any] | str | None = None) -> list[Job]:
        """Return all jobs, or those of one type, in the order of their submission."""
        name = job_type.name if isinstance(job_type, JobType) else job_type
        self._fold()
        found = self._parts.store.list_jobs(JobQuery(types=() if name is None else (name,), limit=MOST))
        return sorted(found, key=lambda job: (job.rank or 0, job.id))

    def events(self, job: str | Job) -> list[JobEvent]:
        """Return the events of a job that were accepted, in the order of the tape."""
        self._fold()
        history = self._parts.store.history(job if isinstance(job, str) else job.id)
        return [decode(entry.event.encode()) for entry in history if entry.accepted]

    def assert_submitted(self, job_type: JobType[Any] | str, /, **payload: Any) -> Job:
        """Return the newest job of this type whose payload has these values. Raises AssertionError if there is none."""
        jobs, wanted = self.jobs(job_type), to_jsonable_python(payload)
        found = [job for job in jobs if wanted.items() <= (job.payload or {}).items()]
        if not found:
            raise AssertionError(f"no job {_name(job_type)} with {wanted} was submitted, but {_shown(jobs)}")
        return found[-1]

    def refute_submitted(self, job_type: JobType[Any] | str | None = None, /, **payload: Any) -> None:
        """Raise AssertionError if there is a job of this type (default: any) whose payload has these values."""
        wanted = to_jsonable_python(payload)
        found = [job for job in self.jobs(job_type) if wanted.items() <= (job.payload or {}).items()]
        if found:
            raise AssertionError(f"{_shown(found)} was submitted")

    async def drain(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Run all jobs that are due, and what follows from them, and return when nothing is left to do now.

        The clock does not move. Raises JobtapeError after ``timeout`` seconds, with the jobs that still run.
        """
        await self._thread.call(self._drain, timeout)

    def drain_sync(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Run jobs as ``drain`` does, and block."""
        self._thread.call_blocking(self._drain, timeout)

    async def advance(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        timeout: float = DRAIN_TIMEOUT,
    ) -> None:
        """Move the clock on, and run what is due on the way, each thing at its time.

        Delays, retries, rates, debounces, schedules and the time of signals follow this clock; the handlers' own clock
        and their timeouts do not. ``timeout``: seconds for each moment at which something is due.
        """
        passed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        await self._thread.call(self._advance, passed.total_seconds(), timeout)

    def advance_sync(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        timeout: float = DRAIN_TIMEOUT,
    ) -> None:
        """Move the clock on as ``advance`` does, and block."""
        passed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        self._thread.call_blocking(self._advance, passed.total_seconds(), timeout)

    async def sync_schedules(self) -> None:
        """Put the schedules of ``@job(…, schedule=…)`` in force, as a deployment does by ``jobtape schedules sync``.

        Raises JobTypeInvalid for a name that is twice, and JobtapeError with the API's answer if it refuses them.
        """
        _check_sync(await self.client.put("/schedules", json=self._schedules))

    def sync_schedules_sync(self) -> None:
        """Put the schedules in force as ``sync_schedules`` does, and block."""
        _check_sync(self.sync_client.put("/schedules", json=self._schedules))

    @cached_property
    def client(self) -> httpx.AsyncClient:
        """The REST API. An answer arrives when it has ended, so read no stream that does not end."""
        return httpx.AsyncClient(transport=self._transport, base_url=BASE_URL, headers=self._headers)

    @cached_property
    def sync_client(self) -> httpx.Client:
        """The REST API as ``client``, for tests without an event loop."""
        return httpx.Client(transport=self._transport, base_url=BASE_URL, headers=self._headers)

    def subscribe(self, **options: Any) -> Any:
        """Return a subscription as ``jobtape.subscribe`` does, of this installation."""
        return subscribe(**options, settings=self.settings)

    def redeliver(self, job: str | Job) -> None:
        """Let the next ``drain`` execute the last attempt of a job once more, by another worker: the broker delivers
        at least once. Raises JobtapeError for a job that was never placed, and without a broker in memory.
        """
        job_id = job if isinstance(job, str) else job.id
        self._fold()
        if not self._memory.put_again(job_id):
            raise JobtapeError(f"the work of the job {job_id} was never placed: `await jt.drain()` first")
        self._worker_must_change = True

    def die_before_ack(self, job: str | Job) -> None:
        """Let the worker that executes this job next die after its outcome is recorded and before it is acknowledged.
        Another worker executes the job again. Raises JobtapeError without a broker in memory.
        """
        self._memory.lose_ack(job if isinstance(job, str) else job.id)

    def reorder(self, seed: int) -> None:
        """Deliver waiting work in another order from now on, which follows from ``seed``.

        Raises JobtapeError without a broker in memory.
        """
        self._memory.disorder(seed)

    @property
    def _memory(self) -> MemoryBroker:
        if self._broker is None:
            raise JobtapeError(_ONLY_IN_MEMORY)
        return self._broker

    @property
    def _transport(self) -> LoopTransport:
        return LoopTransport(self._thread, api_for(self.settings))

    @property
    def _headers(self) -> dict[str, str]:
        return {} if self.settings.api_key is None else {"Authorization": f"Bearer {self.settings.api_key}"}

    @property
    def _schedules(self) -> dict[str, Any]:
        declared = {name: job_type.schedules for name, job_type in self._job_types.items()}
        return {"origin": "code", "items": schedules_to_sync(declared)}

    def _fold(self) -> None:
        """Return when the view has everything that was submitted."""
        self._thread.call_blocking(self._quiet if self._broker is not None else self._parts.folded)

    async def _quiet(self) -> None:
        while True:
            await self._thread.loop.idle()
            if not self._thread.loop.calls_in_threads:
                return
            await asyncio.sleep(POLL)

    async def _advance(self, seconds: float, timeout: float) -> None:
        async with self._running_jobs():
            end = clock.time() + seconds
            await self._until_done(timeout)
            while (due := self._parts.due()) <= end:
                clock.move_to(clock.offset() + max(0.0, due - clock.time()))
                await self._until_done(timeout)
            clock.move_to(clock.offset() + max(0.0, end - clock.time()))
            await self._until_done(timeout)

    async def _drain(self, timeout: float) -> None:
        async with self._running_jobs():
            await self._until_done(timeout)

    @asynccontextmanager
    async def _running_jobs(self) -> AsyncIterator[None]:
        """Let workers get jobs inside the block."""
        if self._broker is None:
            await self._parts.start_worker()
            try:
                yield
            finally:
                await self._parts.stop_worker()
            return
        if self._worker_must_change:
            self._worker_must_change = False
            await self._change_worker()
        self._broker.hold(False)
        try:
            yield
        finally:
            self._broker.hold(True)

    async def _change_worker(self) -> None:
        await self._parts.stop_worker()
        await self._parts.start_worker()

    async def _until_done(self, timeout: float) -> None:
        """Return when nothing is left to do now. Raises JobtapeError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        if self._broker is None:
            await self._until_queues_are_done(deadline)
            return
        await self._until_memory_is_done(self._broker, deadline)
        while self._broker.lost():
            await self._change_worker()
            await self._until_memory_is_done(self._broker, deadline)

    async def _until_memory_is_done(self, broker: MemoryBroker, deadline: float) -> None:
        loop = self._thread.loop
        while True:
            await loop.idle()
            if not (loop.calls_in_threads or broker.left() or self._parts.is_due):
                return
            self._check(deadline)
            await asyncio.sleep(POLL)

    async def _until_queues_are_done(self, deadline: float) -> None:
        """Return when two barriers in a row find nothing between them, and nothing that is not confirmed."""
        last = -1
        while True:
            await self._parts.folded()
            await self._thread.loop.idle()
            reach = self._parts.store.committed.reach().head
            busy = self._thread.loop.calls_in_threads or unconfirmed() or self._parts.is_due or self._working(1)
            if not busy and reach <= last + 1:
                return
            last = -1 if busy else reach
            self._check(deadline)
            await asyncio.sleep(POLL)

    def _working(self, limit: int) -> list[Job]:
        states = [state for state in JobState if state in (JobState.QUEUED, JobState.RUNNING)]
        types = tuple(self._job_types)
        return self._parts.store.list_jobs(JobQuery(types=types, states=states, limit=limit))

    def _check(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            left = ", ".join(f"{job.type} {job.id} ({job.state})" for job in self._working(10)) or "none is running"
            raise JobtapeError(
                f"the jobs did not end in time: {left}. Give drain a longer timeout=, or end the handler"
            )


def _check_sync(answer: httpx.Response) -> None:
    if answer.is_error or answer.json()["refused"]:
        raise JobtapeError(f"the schedules were not put in force: {answer.text}")


def _name(job_type: JobType[Any] | str) -> str:
    return job_type if isinstance(job_type, str) else job_type.name


def _shown(jobs: list[Job]) -> str:
    return "; ".join(f"{job.type} with {job.payload}" for job in jobs[:10]) or "none of that type"
