"""Records which jobs arrive on a work queue, and when, without a worker."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from jobtape.broker.link import BROKER_ERRORS
from jobtape.schemas.events import decode
from tests.consumer.installation import Rig


class Arrivals:
    """``ids`` are in the order of arrival; times are in seconds of the monotonic clock."""

    def __init__(self, rig: Rig, queue: str) -> None:
        self.ids: list[str] = []
        self._arrived: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._rig = rig
        self._queue = rig.topology.work_queue(queue).name
        self._channel: AbstractChannel | None = None

    def expect(self, job_id: str, due: float) -> None:
        """Expect a job that must not arrive before ``due``."""
        self._due[job_id] = due

    def complete(self) -> bool:
        """Whether all expected jobs have arrived."""
        return self._due.keys() <= self._arrived.keys()

    def missing(self) -> set[str]:
        """The ids of expected jobs that have not arrived."""
        return self._due.keys() - self._arrived.keys()

    def lateness(self, since: float = 0.0) -> list[float]:
        """Sorted delays of the arrivals after the due time, or ``since`` if later (seconds, negative if early)."""
        return sorted(arrived - max(self._due[job_id], since) for job_id, arrived in self._arrived.items())

    async def attach(self) -> None:
        """Start consuming, also again after the connection or the queue was lost."""
        await self.detach()
        self._channel = await (await self._rig.link.connection()).channel(publisher_confirms=False)
        await self._channel.set_qos(prefetch_count=200)
        queue = await self._channel.get_queue(self._queue, ensure=False)
        await queue.consume(self._take)

    async def detach(self) -> None:
        if self._channel is not None:
            with suppress(*BROKER_ERRORS, aio_pika.exceptions.AMQPException):
                await self._channel.close()

    async def _take(self, message: AbstractIncomingMessage) -> None:
        arrived = time.monotonic()
        job_id = decode(message.body).subject
        self.ids.append(job_id)
        self._arrived.setdefault(job_id, arrived)
        await message.ack()


@asynccontextmanager
async def arrivals(rig: Rig, queue: str = "default") -> AsyncIterator[Arrivals]:
    """Record arrivals on the work queue ``queue``."""
    arrived = Arrivals(rig, queue)
    await arrived.attach()
    yield arrived
    await arrived.detach()
