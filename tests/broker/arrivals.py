"""What comes out of the delay ladder onto a work queue, and when; no worker in between."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from jobtape.broker.link import BROKER_ERRORS
from jobtape.schemas.events import decode
from tests.consumer.installation import Rig


class Arrivals:
    """``ids`` in the order in which they came; times are this process's monotonic seconds."""

    def __init__(self, rig: Rig, queue: str) -> None:
        self.ids: list[str] = []
        self._came: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._rig = rig
        self._queue = rig.topology.work_queue(queue).name
        self._channel: AbstractChannel | None = None

    def expect(self, job_id: str, due: float) -> None:
        """A job that must not come before ``due``."""
        self._due[job_id] = due

    def complete(self) -> bool:
        """Whether all that is expected has come."""
        return self._due.keys() <= self._came.keys()

    def missing(self) -> set[str]:
        """What has not come yet."""
        return self._due.keys() - self._came.keys()

    def lateness(self, since: float = 0.0) -> list[float]:
        """Seconds by which the jobs came after their time, or after ``since``; sorted, negative where one was early."""
        return sorted(came - max(self._due[job_id], since) for job_id, came in self._came.items())

    async def attach(self) -> None:
        """Take what comes; again after the connection or the queue was gone."""
        await self.detach()
        self._channel = await (await self._rig.link.connection()).channel(publisher_confirms=False)
        await self._channel.set_qos(prefetch_count=200)
        queue = await self._channel.get_queue(self._queue, ensure=False)
        await queue.consume(self._take)

    async def detach(self) -> None:
        """Take no more."""
        if self._channel is not None:
            with suppress(*BROKER_ERRORS, aio_pika.exceptions.AMQPException):
                await self._channel.close()

    async def _take(self, message: AbstractIncomingMessage) -> None:
        came = time.monotonic()
        job_id = decode(message.body).subject
        self.ids.append(job_id)
        self._came.setdefault(job_id, came)
        await message.ack()


@asynccontextmanager
async def arrivals(rig: Rig, queue: str = "default") -> AsyncIterator[Arrivals]:
    """Attached to the work queue."""
    arrived = Arrivals(rig, queue)
    await arrived.attach()
    yield arrived
    await arrived.detach()
