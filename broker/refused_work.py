"""Publishes work that a full queue refused again, in order, until the queue takes it.

Theory of operation. A queue that a policy limits (``max-length``) refuses a publish, but the tape takes the event,
and would take it once more with each repeat. So only the work is repeated: it is published to its queue, or to
the first exchange of the delay ladder, and not to the tape. One message at a time is offered to a full queue, however
many wait. When the queue has taken the work, the event is published to the tape alone, because a refusal is no
proof that the tape has it; readers drop the repeat.

A caller may stop waiting: the work is still placed, unless the process ends before. The projector finds jobs whose work
was lost in that way.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiormq.exceptions

from jobtape.broker.channels import message_properties, publish_once
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.broker.tasks import cancel_and_wait, translate_cancellation
from jobtape.schemas.errors import BrokerUnavailable, QueueFull, TapeMissing
from jobtape.schemas.topology import Topology, queue_of

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before a message is offered to the full queue again."""
CONFIRM_LIMIT: Final = 10.0
MAX_WAITING: Final = 1000
"""Messages that wait for one queue."""


class WorkRefused(QueueFull):
    """The event is on the tape, and its work was refused. ``placing`` is done when the work is placed; cancel it to
    stop trying.
    """

    def __init__(self, message: str, placing: "asyncio.Future[None]") -> None:
        super().__init__(message, recorded=True)
        self.placing = placing


@dataclass(frozen=True, slots=True)
class WorkRoute:
    """Exchange and routing key that bring work to its queue without the tape. ``queue`` is its first queue."""

    queue: str
    exchange: str
    key: str


@dataclass(frozen=True, slots=True)
class _Refused:
    route: WorkRoute
    body: bytes
    content_type: str
    record: Callable[[], Awaitable[None]]
    placed: "asyncio.Future[None]"


def work_route(key: str, topology: Topology) -> WorkRoute | None:
    """The route of work that is published with the ``CC`` key ``key``; None when the key leads to no work queue."""
    first, _, rest = key.partition(".")
    if first == "run":
        name = topology.work_queue(rest).name
        return WorkRoute(name, "", name)
    if first == "delay":
        bits = rest.split(".")[: topology.delay_levels]
        level = topology.delay_levels - 1 - bits.index("1") if "1" in bits else -1
        queue = topology.delay_queue(level) if level >= 0 else topology.work_queue(queue_of(rest))
        return WorkRoute(queue.name, topology.delay_exchange(topology.delay_levels - 1).name, key)
    return None


class RefusedWork:
    """Work that full queues have refused, and that is published again over ``link``."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: dict[str, deque[_Refused]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def is_full(self, queue: str) -> bool:
        """Whether refused work waits for ``queue`` (its name on the broker)."""
        return queue in self._tasks

    async def close(self) -> None:
        """Stop placing; the futures of waiting work are cancelled."""
        for task in list(self._tasks.values()):
            await cancel_and_wait(task)

    def add(
        self, route: WorkRoute, body: bytes, content_type: str, record: Callable[[], Awaitable[None]]
    ) -> "asyncio.Future[None]":
        """Place work as soon as there is room. Return a future that is done when it is placed and ``record`` has
        returned, and cancelled when ``MAX_WAITING`` messages wait already. ``record`` writes the event to the tape, and
        raises BrokerUnavailable or TapeMissing.
        """
        placed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(route.queue, deque())
        if len(waiting) >= MAX_WAITING:
            placed.cancel()
            return placed
        waiting.append(_Refused(route, body, content_type, record, placed))
        if route.queue not in self._tasks:
            log.warning(
                "the queue %s is full and refuses work: `jobtape doctor` names the policy that limits it", route.queue
            )
            task = asyncio.create_task(
                self._place_all(route.queue, waiting), name=f"place refused work of {route.queue}"
            )
            self._tasks[route.queue] = task
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
        """Return when it is placed and recorded, or when its future is cancelled."""
        pause = FIRST_PAUSE
        placed = False
        while not refused.placed.done():
            try:
                if not placed:
                    with translate_cancellation():
                        await self._publish(refused)
                    placed = True
                return await refused.record()
            except TapeMissing as error:
                log.warning("work was placed, but its event is not on the tape: %s", error)
                return
            except (BrokerUnavailable, *BROKER_ERRORS) as error:
                log.debug("work for %s waits: %s", refused.route.queue, reason_of(error))
            await asyncio.wait({refused.placed}, timeout=pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _publish(self, refused: _Refused) -> None:
        route = refused.route
        properties = message_properties(content_type=refused.content_type)
        try:
            # A new channel each time: a queue may go on refusing one that it has refused (see ``ConfirmedChannel``).
            await publish_once(
                self._link,
                refused.body,
                exchange=route.exchange,
                key=route.key,
                properties=properties,
                timeout=CONFIRM_LIMIT,
            )
        except aiormq.exceptions.PublishError:
            log.warning("the queue %s does not exist: its work is placed when it exists again", route.queue)
