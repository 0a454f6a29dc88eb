"""Deliveries that a worker cannot run: work of a job type or version that it does not know, and other messages."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from jobtape.broker.link import BROKER_ERRORS
from jobtape.broker.publisher import Publisher, publish_dead_letter
from jobtape.broker.queue_consumer import Delivery
from jobtape.process import clock
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import DeferReason, EncodedEvent, NewerWork, WorkEvent, decode_newer_work, encoded
from jobtape.schemas.events.placement import deferral, deferred_since

log = logging.getLogger(__name__)

DEAD_LETTER_TIMEOUT: Final = 30.0
"""Seconds within which a message must be on the dead queue."""


class UnrunnableWork:
    """Defers work for ``unknown_type_timeout`` seconds at most, and moves messages that are no work to the dead queue.

    ``publish_until_confirmed`` returns when the tape has the event.
    """

    def __init__(
        self,
        publisher: Publisher,
        publish_until_confirmed: Callable[[EncodedEvent], Awaitable[None]],
        *,
        unknown_type_timeout: float,
    ) -> None:
        self._publisher = publisher
        self._publish_until_confirmed = publish_until_confirmed
        self._unknown_type_timeout = unknown_type_timeout

    def is_too_old(self, work: WorkEvent | NewerWork) -> bool:
        """Return whether the work was deferred for so long that no worker is likely to know it."""
        now = clock.now()
        return (now - deferred_since(work, "unknown_type", now)).total_seconds() >= self._unknown_type_timeout

    async def defer(
        self, work: WorkEvent | NewerWork, delivery: Delivery, reason: DeferReason = "unknown_type"
    ) -> None:
        """Defer work that cannot run now: by default because this worker does not know its type, and another one may.

        If it were given back to its queue, RabbitMQ 4.3 would deliver it again at once, in an endless loop.
        """
        source = self._publisher.topology.source
        deferred = deferral(work, reason, source=source, time=clock.now())
        await self._publish_until_confirmed(encoded(deferred))
        await delivery.ack()

    async def defer_newer(self, delivery: Delivery, error: UnreadableEvent) -> None:
        """Defer work of a later version, or move it to the dead queue when it is too old. ``error``: why it could not
        be read.
        """
        try:
            work = decode_newer_work(delivery.body)
        except UnreadableEvent as fault:
            return await self.dead_letter(delivery, fault)
        await (self.dead_letter(delivery, error) if self.is_too_old(work) else self.defer(work, delivery))

    async def dead_letter(self, delivery: Delivery, error: UnreadableEvent) -> None:
        """Move a message to the dead queue."""
        reason, topology = str(error), self._publisher.topology
        log.error("a message on a work queue is not a job and goes to %s: %s", topology.dead.name, reason)
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(DEAD_LETTER_TIMEOUT):
                await publish_dead_letter(self._publisher.link, topology, delivery.body, reason)
            await delivery.ack()
            return
        await delivery.requeue()
