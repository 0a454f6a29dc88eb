"""Places work that a full queue refused, in its order, as soon as the queue takes it.

Theory of operation. A queue that a policy limits (``max-length``) refuses a publish as a whole, but the tape has the
event by then, and has it once more with each repeat. So what is repeated is the work alone: published to its queue, or
to the first exchange of the ladder, and not to the tape. One after the other for each queue, so a full one is asked by
one message at a time, however many wait for it. Once it has taken the work, the event is published to the tape alone,
for the refusal left open whether that has it; readers drop the repeat.

Whoever waits for a placement may give up waiting: it goes on, and ends with the process. What is left then is found by
the projector, which looks for jobs whose work is nowhere.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import aiormq.exceptions
from aiormq import spec

from jobtape.broker.channels import channel
from jobtape.broker.confirmed_channel import PERSISTENT
from jobtape.broker.link import BROKER_ERRORS, Link, end, lost_where_cancelled, reason_of
from jobtape.schemas.errors import BrokerUnavailable, QueueFull, TapeMissing
from jobtape.schemas.topology import Topology, queue_of

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds until a queue that has refused is asked again."""
CONFIRM_LIMIT: Final = 10.0
MOST: Final = 1000
"""Messages kept of one queue."""


class WorkRefused(QueueFull):
    """The event is on the tape, and its work was refused. ``placing`` is done when it was placed after all; cancelling
    it gives that up.
    """

    def __init__(self, message: str, placing: "asyncio.Future[None]") -> None:
        super().__init__(message, recorded=True)
        self.placing = placing


@dataclass(frozen=True, slots=True)
class Way:
    """How work gets to its queue without the tape: ``queue`` is the name of the first queue on its way."""

    queue: str
    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class _Refused:
    way: Way
    body: bytes
    content_type: str
    record: Callable[[], Awaitable[None]]
    placed: "asyncio.Future[None]"


def way_of(key: str, topology: Topology) -> Way | None:
    """The way of the work that is published with the second key ``key``; None when it leads to no queue of work."""
    first, _, rest = key.partition(".")
    if first == "run":
        name = topology.work_queue(rest).name
        return Way(name, "", name)
    if first == "delay":
        bits = rest.split(".")[: topology.delay_levels]
        level = topology.delay_levels - 1 - bits.index("1") if "1" in bits else -1
        queue = topology.delay_queue(level) if level >= 0 else topology.work_queue(queue_of(rest))
        return Way(queue.name, topology.delay_exchange(topology.delay_levels - 1).name, key)
    return None


class RefusedWork:
    """What full queues have refused of what was published over ``link``."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: dict[str, deque[_Refused]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def is_full(self, queue: str) -> bool:
        """Whether something waits because that queue, by its name on the broker, refused it."""
        return queue in self._tasks

    async def close(self) -> None:
        """Place nothing more; what waits is cancelled."""
        for task in list(self._tasks.values()):
            await end(task)

    def add(
        self, way: Way, body: bytes, content_type: str, record: Callable[[], Awaitable[None]]
    ) -> "asyncio.Future[None]":
        """Place it as soon as there is room; done when it was placed and ``record`` has returned. ``record`` writes it
        to the tape, and raises BrokerUnavailable or TapeMissing. Cancelled when too much waits already.
        """
        placed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(way.queue, deque())
        if len(waiting) >= MOST:
            placed.cancel()
            return placed
        waiting.append(_Refused(way, body, content_type, record, placed))
        if way.queue not in self._tasks:
            log.warning("the queue %s is full and refuses work: see `jobtape doctor`", way.queue)
            task = asyncio.create_task(self._place_all(way.queue, waiting), name=f"place refused work of {way.queue}")
            self._tasks[way.queue] = task
        return placed

    async def _place_all(self, queue: str, waiting: deque[_Refused]) -> None:
        try:
            while waiting:
                first = waiting[0]
                if not first.placed.done():
                    await self._place(first)
                    if not first.placed.done():
                        first.placed.set_result(None)
                waiting.popleft()
            log.info("the queue %s takes work again", queue)
        finally:
            del self._tasks[queue], self._waiting[queue]
            for each in waiting:
                each.placed.cancel()

    async def _place(self, refused: _Refused) -> None:
        """Returns when it was placed and recorded, or nobody wants that any more."""
        pause = FIRST_PAUSE
        placed = False
        while not refused.placed.done():
            try:
                if not placed:
                    with lost_where_cancelled():
                        await self._publish(refused)
                    placed = True
                return await refused.record()
            except TapeMissing as error:
                log.warning("work was placed, and its event is not on the tape: %s", error)
                return
            except (BrokerUnavailable, *BROKER_ERRORS) as error:
                log.debug("work for %s waits: %s", refused.way.queue, reason_of(error))
            await asyncio.wait({refused.placed}, timeout=pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _publish(self, refused: _Refused) -> None:
        properties = spec.Basic.Properties(
            content_type=refused.content_type, delivery_mode=PERSISTENT, message_id=uuid4().hex, headers={}
        )
        # A channel of its own each time: one that was refused may be refused for ever (see ``ConfirmedChannel``).
        async with channel(await self._link.connection(), confirms=True) as opened, asyncio.timeout(CONFIRM_LIMIT):
            try:
                await opened.basic_publish(
                    refused.body,
                    exchange=refused.way.exchange,
                    routing_key=refused.way.key,
                    properties=properties,
                    mandatory=True,
                )
            except aiormq.exceptions.PublishError:
                log.warning("the queue %s is gone: its work is put back when it is there again", refused.way.queue)
