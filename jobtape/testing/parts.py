"""The parts of an installation in one process: a projector, what submits, and a worker."""

import asyncio
import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final
from uuid import uuid4

from jobtape.app import registered_producer
from jobtape.consumer.projector.projector import Projector
from jobtape.consumer.worker.worker import Worker
from jobtape.jobs import JobType
from jobtape.process import clock
from jobtape.producer.producer import Producer
from jobtape.producer.service.submission.order_check import recorder
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.queueing.lanes import queues_of
from jobtape.settings import Settings
from jobtape.testing.loop import MovableLoop
from jobtape.view.store import Store

LEASE: Final = 60.0
"""Seconds; there is no other projector that could take over."""
GRACE: Final = 5.0
"""Seconds for running jobs when the installation ends."""
START_TIMEOUT: Final = 30.0
POLL: Final = 0.001
"""Seconds between two checks while handlers run."""


class Parts:
    """Runs all parts on ``loop``. All methods are for that loop.

    ``settings`` name broker and namespace, and ``store`` is the view, whose tables exist.
    ``maintenance``: see ``Projector``.
    """

    def __init__(
        self,
        loop: MovableLoop,
        settings: Settings,
        store: Store,
        job_types: Mapping[str, JobType],
        *,
        maintenance: bool,
    ) -> None:
        self.settings = settings
        self.store = store
        self._loop = loop
        self._job_types = job_types
        self._topology = settings.topology.with_queues(queues_of(job_types.values()))
        self._projector = Projector(
            settings.rabbitmq_url,
            settings.topology,
            self.store,
            owner=f"testing-{uuid4().hex[:8]}",
            lease=LEASE,
            rescue_after=settings.rescue_after,
            relay=settings.relay_events,
            job_retention=settings.job_retention,
            max_payload=settings.max_payload,
            maintenance=maintenance,
            linger=0.0,  # whoever waits until the loop is idle does not wait for timers
        )
        self._stack = AsyncExitStack()
        self._projecting: tuple[asyncio.Task[None], asyncio.Event] | None = None
        self._working: tuple[asyncio.Task[None], asyncio.Event] | None = None
        self.producer: Producer

    async def start(self) -> None:
        """Return when all parts but the worker run. Raises JobtapeError."""
        self._projecting = _begun(self._projector.run)
        await self._until(lambda: self._projector.fault, "the projector")
        entering = registered_producer(self.settings, self.store, self._job_types, covers=True)
        _, self.producer = await self._stack.enter_async_context(entering)
        await self._until(lambda: self.producer.watch.broker_fault or self.producer.watch.tape_fault, "the API")

    async def start_worker(self) -> None:
        """Return when a new worker takes jobs."""
        worker = Worker(
            self.settings.rabbitmq_url,
            self._topology,
            self._job_types,
            concurrency=self.settings.concurrency,
            grace=GRACE,
            max_result=self.settings.max_result,
            ack_timeout=self.settings.ack_timeout,
            unknown_type_timeout=self.settings.unknown_type_timeout,
            name=f"testing-{uuid4().hex[:8]}",
            record=recorder(self._job_types, self.settings.limits, self.settings.max_result),
            # A handler of a test module cannot be imported by another process.
            isolation=False,
        )
        self._working = _begun(worker.run)
        await self._until(lambda: worker.fault, "the worker")

    async def stop_worker(self) -> None:
        """Return when the worker has ended. Running jobs get ``GRACE`` seconds."""
        await _ended(self._working)
        self._working = None

    async def stop(self) -> None:
        """End all parts."""
        await self.stop_worker()
        await self._stack.aclose()
        await _ended(self._projecting)
        await self._loop.threads_ended()

    async def folded(self) -> None:
        """Return when the view has everything that is on the tape. Raises ViewBehind and what the producer raises."""
        await self.producer.existing(())

    def due(self) -> float:
        """Return when something is due, in seconds since 1970. Reads the view."""
        timed = self.store.open_jobs.earliest_timed()
        return min(math.inf if timed is None else timed.timestamp(), self._projector.next_at())

    @property
    def is_due(self) -> bool:
        """Whether something is due that is not done yet."""
        return self.due() <= clock.time()

    async def _until(self, fault: Any, what: str) -> None:
        """Return when ``fault`` returns None."""
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT
        while (found := fault()) is not None:
            for part in (self._projecting, self._working):
                if part is not None and part[0].done():
                    part[0].result()
            if asyncio.get_running_loop().time() > deadline:
                raise JobtapeError(f"{what} did not start within {START_TIMEOUT:g} s: {found}")
            await self._loop.idle()
            if fault() is not None:
                await asyncio.sleep(POLL)


def _begun(run: Any) -> tuple["asyncio.Task[None]", asyncio.Event]:
    stop = asyncio.Event()
    return asyncio.create_task(run(stop)), stop


async def _ended(part: tuple["asyncio.Task[None]", asyncio.Event] | None) -> None:
    if part is not None:
        task, stop = part
        stop.set()
        await task
