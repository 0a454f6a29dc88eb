"""Brings work that fell due for a missing work queue to that queue, once it is there again.

Such work comes out of the delay ladder and waits on the queue ``unroutable``. When a queue that jobs of the view are on
is there again, the whole is gone through, otherwise a little of it now and then (a queue may have been away unseen).
What still has no queue goes to the end. Each message is acknowledged after it was confirmed elsewhere, and travels
without the headers that would send it on other ways (``CC``, ``x-death``).
"""

import asyncio
import logging
from typing import Final
from uuid import uuid4

import aiormq.exceptions
from aiormq import spec
from aiormq.abc import DeliveredMessage

from jobtape.broker.channels import PERSISTENT, Channel, channel
from jobtape.broker.publisher import publish_dead_letter
from jobtape.broker.tasks import finish_before_cancel
from jobtape.consumer.projector.maintenance.leader import Leader
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import Requeued, Retrying, Submitted, decode

log = logging.getLogger(__name__)

PAGE: Final = 200
LONGEST_PAUSE: Final = 5.0
"""Seconds between two looks."""
SELDOM: Final = 12
"""Looks from one to the next that takes a few of them though nothing has changed."""
GET_LIMIT: Final = 5.0
"""Seconds; a queue without a majority answers nothing."""
OURS: Final = "jobtape-"
"""How the headers begin that mean something to a worker."""


class StrandedWork:
    """Looks as often as is fitting for ``rescue_after`` (seconds): what is brought back late seems lost."""

    def __init__(self, leader: Leader, rescue_after: float) -> None:
        self._leader = leader
        self._every = min(LONGEST_PAUSE, rescue_after / 8)

    async def run(self) -> None:
        """Until it is cancelled; raises what broker and view raise."""
        missing: set[str] | None = None  # not known
        looks = 0
        while True:
            await asyncio.sleep(self._every)
            depth = await self._leader.depth_of(self._leader.topology.unroutable_queue.name)
            if depth is None or depth.messages == 0:
                missing = None
                continue
            before, missing = missing, await self._missing()
            looks += 1
            if before is None or before - missing:
                await self._go_through(depth.messages)
            elif looks % SELDOM == 0:
                await self._go_through(min(PAGE, depth.messages))

    async def _missing(self) -> set[str]:
        queues = await self._leader.call(self._leader.store.open_jobs.queues)
        return {queue for queue in queues if not await self._leader.is_there(queue)}

    async def _go_through(self, left: int) -> None:
        """So many of them, and on as long as all find their queues."""
        while left > 0:
            taken, placed = await finish_before_cancel(self._page(min(PAGE, left)))
            left -= taken
            if taken == 0 or (left <= 0 and placed == taken):
                left = PAGE if taken else 0

    async def _page(self, most: int) -> tuple[int, int]:
        """Take so many of them; how many there were, and how many of these found their queues."""
        connection = await self._leader.link.connection()
        sender = await self._leader.publisher.link.connection()
        async with channel(sender, confirms=True) as sending, channel(connection) as taking:
            messages = await _take(taking, self._leader.topology.unroutable_queue.name, most)
            there: dict[str, bool] = {}
            placed = 0
            for message in messages:
                placed += await self._place(sending, message, there)
                await taking.basic_ack(message.delivery_tag or 0)
        return len(messages), placed

    async def _place(self, sending: Channel, message: DeliveredMessage, there: dict[str, bool]) -> bool:
        """Publish it again, to its queue or to the end of this one; return whether it reached its queue."""
        try:
            name = _queue_of(message.body)
        except UnreadableEvent as error:
            await publish_dead_letter(self._leader.publisher.link, self._leader.topology, message.body, str(error))
            return True
        if name not in there:
            there[name] = await self._leader.is_there(name)
        placed = there[name] and await _publish(sending, self._leader.topology.work_queue(name).name, message)
        if not placed:
            there[name] = False
            await _publish(sending, self._leader.topology.unroutable_queue.name, message)
        return placed


async def _take(taking: Channel, queue: str, most: int) -> list[DeliveredMessage]:
    messages: list[DeliveredMessage] = []
    while len(messages) < most:
        message = await taking.basic_get(queue, timeout=GET_LIMIT)
        if isinstance(message.delivery, spec.Basic.GetEmpty):
            break
        messages.append(message)
    return messages


async def _publish(sending: Channel, queue: str, message: DeliveredMessage) -> bool:
    """False when there is no such queue, or it is full."""
    before = message.header.properties
    properties = spec.Basic.Properties(
        headers={name: value for name, value in (before.headers or {}).items() if name.startswith(OURS)},
        content_type=before.content_type,
        message_id=uuid4().hex,
        delivery_mode=PERSISTENT,
    )
    try:
        await sending.basic_publish(message.body, routing_key=queue, properties=properties, mandatory=True)
    except aiormq.exceptions.DeliveryError:
        return False
    return True


def _queue_of(body: bytes) -> str:
    event = decode(body)
    if isinstance(event, Submitted | Retrying | Requeued):
        return event.data.order.queue
    raise UnreadableEvent(f"a {event.name} event on its way to a work queue")
