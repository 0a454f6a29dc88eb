"""Repairs what missing queues cause: declares Jobtape's own queues again, and delivers work that had no work queue.

Without its queues the delay ladder loses delayed jobs, and ``dead`` and ``unroutable`` lose what is sent to them. They
can be missing because somebody deleted them, or because a policy (``expires``) did. RabbitMQ's documentation says that
declaring a queue again resets its expiry; 3.10.8 does not do so (tried), only a consumer does. A missing work queue
is not declared: which work queues exist is up to the workers.

Work that becomes due for a missing work queue goes from the delay ladder to the queue ``unroutable``. When a work queue
of open jobs exists again, all messages there are tried. Otherwise one page is tried at every few checks, because a
queue may be deleted and declared again between two checks. A message whose queue is still missing goes to the end. Each
message is acknowledged after its copy was confirmed. The copy has none of the headers that would route it elsewhere
(``CC``, ``x-death``).
"""

import asyncio
import logging
from typing import Final
from uuid import uuid4

import aiormq.exceptions
from aiormq import spec
from aiormq.abc import DeliveredMessage

from jobtape.broker import declare
from jobtape.broker.channels import PERSISTENT, Channel, channel
from jobtape.broker.link import BROKER_ERRORS
from jobtape.broker.publisher import publish_dead_letter
from jobtape.broker.tasks import finish_before_cancel
from jobtape.consumer.projector.maintenance.leader import Leader
from jobtape.schemas.errors import JobtapeError, UnreadableEvent
from jobtape.schemas.events import decode_work

log = logging.getLogger(__name__)

LONGEST_DECLARE_PAUSE: Final = 15.0
"""Seconds between two declarations."""
LONGEST_PAUSE: Final = 5.0
"""Seconds between two checks of the queue ``unroutable``."""
PAGE: Final = 200
CHECKS_PER_SAMPLE: Final = 12
"""After so many checks without a change, one page is tried."""
GET_TIMEOUT: Final = 5.0
"""Seconds; a queue without a majority does not answer."""
OWN_HEADERS: Final = "jobtape-"
"""Prefix of the headers that a worker reads."""


class QueueRedeclarer:
    """Declares Jobtape's own queues, at least eight times in ``rescue_after`` (seconds), after which jobs seem lost."""

    def __init__(self, leader: Leader, rescue_after: float) -> None:
        self._leader = leader
        self._pause = min(LONGEST_DECLARE_PAUSE, rescue_after / 8)

    async def run(self) -> None:
        """Run until cancelled. Raises BROKER_ERRORS."""
        topology = self._leader.topology.with_queues(())
        while True:
            await asyncio.sleep(self._pause)
            try:
                await declare.declare(await self._leader.link.connection(), topology)
            except JobtapeError as error:
                log.warning("the queues of Jobtape cannot be declared again: %s", error)
                await asyncio.sleep(LONGEST_DECLARE_PAUSE)


class UnroutableRescuer:
    """Delivers work from the queue ``unroutable`` before it seems lost (after ``rescue_after`` seconds)."""

    def __init__(self, leader: Leader, rescue_after: float) -> None:
        self._leader = leader
        self._topology = leader.topology
        self._pause = min(LONGEST_PAUSE, rescue_after / 8)

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable and BROKER_ERRORS."""
        missing: set[str] | None = None
        checks = 0
        while True:
            await asyncio.sleep(self._pause)
            depth = await self._leader.depth(self._topology.unroutable_queue.name)
            if depth is None or depth.messages == 0:
                missing = None
                continue
            before, missing = missing, await self._missing_queues()
            checks += 1
            if before is None or before - missing:
                await self._rescue(depth.messages)
            elif checks % CHECKS_PER_SAMPLE == 0:
                await self._rescue(min(PAGE, depth.messages))

    async def _missing_queues(self) -> set[str]:
        queues = await self._leader.call(self._leader.store.open_jobs.queues)
        return {queue for queue in queues if not await self._exists(queue)}

    async def _exists(self, queue: str) -> bool:
        try:
            return await self._leader.depth(self._topology.work_queue(queue).name) is not None
        except BROKER_ERRORS:
            return False

    async def _rescue(self, left: int) -> None:
        """Try ``left`` messages, and further pages as long as all of a page reach their queues."""
        while left > 0:
            taken, placed = await finish_before_cancel(self._rescue_page(min(PAGE, left)))
            left -= taken
            if taken == 0 or (left <= 0 and placed == taken):
                left = PAGE if taken else 0

    async def _rescue_page(self, limit: int) -> tuple[int, int]:
        """Take at most ``limit`` messages; return how many were taken, and how many of them reached their queues."""
        connection = await self._leader.link.connection()
        publishing = await self._leader.publisher.link.connection()
        async with channel(publishing, confirms=True) as sending, channel(connection) as taking:
            messages = await _take(taking, self._topology.unroutable_queue.name, limit)
            existing: dict[str, bool] = {}
            placed = 0
            for message in messages:
                placed += await self._place(sending, message, existing)
                await taking.basic_ack(message.delivery_tag or 0)
        return len(messages), placed

    async def _place(self, sending: Channel, message: DeliveredMessage, existing: dict[str, bool]) -> bool:
        """Publish a copy to the work queue or back to ``unroutable``; return whether the work queue got it.

        ``existing`` remembers which work queues exist.
        """
        try:
            queue = decode_work(message.body).data.order.queue
        except UnreadableEvent as error:
            await publish_dead_letter(self._leader.publisher.link, self._topology, message.body, str(error))
            return True
        if queue not in existing:
            existing[queue] = await self._exists(queue)
        placed = existing[queue] and await _publish(sending, self._topology.work_queue(queue).name, message)
        if not placed:
            existing[queue] = False
            await _publish(sending, self._topology.unroutable_queue.name, message)
        return placed


async def _take(taking: Channel, queue: str, limit: int) -> list[DeliveredMessage]:
    messages: list[DeliveredMessage] = []
    while len(messages) < limit:
        message = await taking.basic_get(queue, timeout=GET_TIMEOUT)
        if isinstance(message.delivery, spec.Basic.GetEmpty):
            break
        messages.append(message)
    return messages


async def _publish(sending: Channel, queue: str, message: DeliveredMessage) -> bool:
    """Publish a copy to a queue; return False when the queue is missing or full."""
    before = message.header.properties
    properties = spec.Basic.Properties(
        headers={name: value for name, value in (before.headers or {}).items() if name.startswith(OWN_HEADERS)},
        content_type=before.content_type,
        message_id=uuid4().hex,
        delivery_mode=PERSISTENT,
    )
    try:
        await sending.basic_publish(message.body, routing_key=queue, properties=properties, mandatory=True)
    except aiormq.exceptions.DeliveryError:
        return False
    return True
