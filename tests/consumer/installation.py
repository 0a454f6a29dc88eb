"""The base of worker and projector tests: a namespace with its tape, a publisher, and a reader of the tape."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aio_pika
from uuid_utils import uuid7

from jobtape.broker import declare
from jobtape.broker.link import BROKER_ERRORS, Connection, Link
from jobtape.broker.publisher import Publisher
from jobtape.broker.stream_reader import StreamReader
from jobtape.consumer.projector.projector import Projector
from jobtape.consumer.worker.worker import Worker
from jobtape.jobs import JobType
from jobtape.producer.service.submission.order_check import recorder
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing, UnreadableEvent
from jobtape.schemas.events import JobEvent, Submitted, decode, submitted
from jobtape.schemas.job import FINAL, Order
from jobtape.schemas.messages.barrier import read_barrier
from jobtape.schemas.topology import BARRIER_KEY, Topology, work_key
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.waiting import LIMIT, eventually

_OUTCOMES = frozenset(state.value for state in FINAL)


def order_event(topology: Topology, job_type: str, payload: dict[str, Any] | None = None, **order: Any) -> Submitted:
    """Return the event ``submitted`` of a new job."""
    fields = {"queue": "default", "timeout": 30.0} | order
    placed = Order(type=job_type, payload=payload or {}, **fields)
    return submitted(str(uuid7()), placed, source=topology.source, time=datetime.now(UTC))


class Rig:
    """``async with Rig(url, topology) as rig``; ``events`` are those of the tape so far, in its order."""

    def __init__(self, url: str, topology: Topology) -> None:
        self.url = url
        self.topology = topology
        self.link = Link(url, name=f"rig {topology.namespace}", setup=self._declare)
        # Where somebody attaches to a tape that is just being deleted, RabbitMQ 3.10 ends the whole connection.
        self._watch_link = Link(url, name=f"rig {topology.namespace} watch")
        self.publisher = Publisher(self.link, topology)
        self.events: list[JobEvent] = []
        self._watching: asyncio.Task[None] | None = None
        self._following = 0
        self._tapes = 1
        self._stops: dict[str, asyncio.Event] = {}
        self._name = f"rig-{uuid4().hex}"
        self._last_barrier = 0
        self._passed_barrier = 0

    async def __aenter__(self) -> "Rig":
        self.link.start()
        self._watch_link.start()
        await declare.create_log(await self.link.connection(), self.topology)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watching is not None
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        await self._watch_link.close()
        await self.link.close()

    async def submit(self, job_type: str, payload: dict[str, Any] | None = None, **order: Any) -> str:
        """Publish a new job and return its id."""
        event = order_event(self.topology, job_type, payload, **order)
        await self.publisher.publish(event, [work_key(event.data.order.queue)])
        return event.subject

    async def put(self, body: bytes, queue: str = "default") -> None:
        """Publish a raw message to a work queue only, not to the tape."""
        channel = await (await self.link.connection()).channel()
        async with channel:
            await channel.default_exchange.publish(aio_pika.Message(body), self.topology.work_queue(queue).name)

    async def read_to_end(self) -> None:
        """Wait until ``events`` has all that is on the tape now.

        Call it before looking for events whose consequences were seen elsewhere, or that must not be there.
        """
        self._last_barrier += 1
        own = self._last_barrier
        await self.publisher.publish_barrier(self._name, own, timeout=LIMIT)
        await eventually(lambda: self._passed_barrier >= own, what="the tape is read to its end")

    def of(self, job_id: str) -> list[JobEvent]:
        """Return the job's events on the tape so far."""
        return [event for event in self.events if event.subject == job_id]

    def names(self, job_id: str) -> list[str]:
        """Return the names of the job's events."""
        return [event.name for event in self.of(job_id)]

    def steps(self, job_id: str) -> list[str]:
        """Return the names of the job's events but ``started``, which a job has when it does not end at once."""
        return [name for name in self.names(job_id) if name != "started"]

    async def outcome(self, job_id: str, timeout: float = LIMIT) -> Any:
        """Wait for the first final event of the job."""
        return await eventually(
            lambda: next((event for event in self.of(job_id) if event.name in _OUTCOMES), None),
            timeout,
            what=f"an outcome of {job_id}: {self.names(job_id)}",
        )

    async def depth(self, queue: str = "default") -> int:
        """Return how many messages wait on the work queue, without those that a worker has."""
        found = await declare.depth(await self.link.connection(), self.topology.work_queue(queue).name)
        assert found is not None
        return found.messages

    def nothing_on(self, name: str) -> Callable[[], Awaitable[bool]]:
        """Return a condition: the queue of this name on the broker has no waiting message."""

        async def condition() -> bool:
            found = await declare.depth(await self.link.connection(), name)
            return found is not None and found.messages == 0

        return condition

    def depth_is(self, expected: int) -> Callable[[], Awaitable[bool]]:
        """Return a condition: this many messages wait on the work queue."""

        async def condition() -> bool:
            return await self.depth() == expected

        return condition

    async def consumers(self, queue: str = "default") -> int:
        """Return how many consumers the work queue has; 0 if there is no such queue."""
        found = await declare.depth(await self.link.connection(), self.topology.work_queue(queue).name)
        return 0 if found is None else found.consumers

    async def delete_tape(self) -> None:
        """Delete the tape, as an administrator might. ``events`` keeps what was read."""
        channel = await (await self.link.connection()).channel()
        async with channel:
            await channel.queue_delete(self.topology.log.name)
        self._tapes += 1
        self._following = 0

    async def create_tape(self) -> None:
        """Create a tape; there must be none."""
        assert await declare.create_log(await self.link.connection(), self.topology)

    async def dead(self) -> tuple[bytes, Mapping[str, Any]] | None:
        """Take one message from the dead queue: its body and headers."""
        channel = await (await self.link.connection()).channel()
        async with channel:
            queue = await channel.get_queue(self.topology.dead_queue.name, ensure=False)
            message = await queue.get(no_ack=True, fail=False)
            return None if message is None else (message.body, message.headers)

    @asynccontextmanager
    async def worker(
        self, *job_types: JobType, queues: Sequence[str] | None = None, stop: bool = True, **settings: Any
    ) -> AsyncIterator[Worker]:
        """Run a worker that takes jobs from ``queues`` (default: all). Without ``stop`` it ends as if it was killed."""
        topology = self.topology if queues is None else self.topology.with_queues(queues)
        defaults: dict[str, Any] = {"concurrency": 4, "grace": 5.0, "max_result": 2**20, "ack_timeout": 1800.0}
        known = {each.name: each for each in job_types}
        defaults["record"] = recorder(known, Settings().limits, 2**20)
        settings = defaults | {"name": f"w-{uuid4().hex[:4]}"} | settings
        worker = Worker(self.url, topology, known, **settings)
        async with running(worker, stop=stop) as stopping:
            self._stops[worker.name] = stopping
            await eventually(lambda: worker.fault is None, what="the worker takes jobs")
            yield worker

    def stop(self, name: str) -> None:
        """Ask the worker of that name, or the projector, to stop now, while the test continues."""
        self._stops[name].set()

    @asynccontextmanager
    async def projector(
        self, store: Store, *, owner: str = "p1", lease: float = 4.0, ready: bool = True, **settings: Any
    ) -> AsyncIterator[Projector]:
        """Run a projector on ``store``, active or in stand-by."""
        # In life too it does not know which work queues there are to be.
        topology = self.topology.with_queues(())
        projector = Projector(self.url, topology, store, owner=owner, lease=lease, **settings)
        async with running(projector) as stopping:
            self._stops[owner] = stopping
            if ready:
                await eventually(lambda: projector.fault is None, what="the projector folds")
            yield projector

    async def _declare(self, connection: Connection) -> None:
        await declare.declare(connection, self.topology)

    async def _watch(self) -> None:
        while True:
            tape = self._tapes
            try:
                async with StreamReader(
                    await self._watch_link.connection(), self.topology.log.name, self._following or "first"
                ) as reader:
                    while tape == self._tapes:
                        for message in await reader.read(1000):
                            if tape == self._tapes:  # otherwise it was read from one that is deleted now
                                self._following = message.offset + 1
                            self._note(message.key, message.body)
            except (BrokerUnavailable, TapeMissing, *BROKER_ERRORS):
                pass
            await asyncio.sleep(0.1)

    def _note(self, key: str, body: bytes) -> None:
        with suppress(UnreadableEvent):
            if key != BARRIER_KEY:
                self.events.append(decode(body))
                return
            process, number = read_barrier(body)
            if process == self._name:
                self._passed_barrier = number


@asynccontextmanager
async def running(part: Worker | Projector, *, stop: bool = True) -> AsyncIterator[asyncio.Event]:
    """Run a part in the background. What it raises is raised at the end of the block."""
    stopping = asyncio.Event()
    task = asyncio.create_task(part.run(stopping))
    try:
        yield stopping
    finally:
        if stop or task.done():
            stopping.set()
            async with asyncio.timeout(60):
                await task
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
