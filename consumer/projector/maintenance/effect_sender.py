"""Publishes what waits in the outbox: each effect of the fold, until the fold has seen it on the tape.

Theory of operation. A row is deleted by the fold when its event comes by on the tape, and by nothing else. So whoever
becomes the active projector may find rows whose events were published already, by another, or in a past that is only
being folded now: it sends nothing before a **barrier** of its own has passed. What was on the tape by then has been
deleted. The same holds for a row whose publish came to nothing, since that means *unknown*: it is put off, and sent
again only behind another barrier. Rows that the fold writes from then on are new, and are sent at once.

What was confirmed stays in the outbox until the fold comes to it, and is remembered here so long. Work for a queue that
is not there would vanish, so such a row waits until it is. Work that the broker dropped waits until somebody consumes
its queue: it would only be dropped again. Where a full queue refuses work, the tape has the event, so the fold deletes
the row: the publisher goes on to place that work alone, and other rows for the queue wait. Rows that fail hold up no
others.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.declare import Depth
from jobtape.broker.link import BROKER_ERRORS, reason_of
from jobtape.broker.tasks import wait_for_stop
from jobtape.consumer.projector.maintenance.leader import Leader
from jobtape.schemas.errors import QueueFull, UnreadableEvent
from jobtape.schemas.events import JobEvent, Requeued, decode
from jobtape.view.store import Batch, OutboxRow

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Effects in flight at once."""
EVERY: Final = 1.0
"""Seconds between two looks for rows that were put off."""
LONGEST_WAIT: Final = 30.0
LONGEST_WAIT_FOR_CONSUMERS: Final = 10.0


class EffectSender:
    """Sends over the leader's publisher, on a connection of its own: a queue that confirms nothing stops no fold."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._publisher = leader.publisher
        self._news = asyncio.Event()
        self._sent: set[str] = set()

    def folded(self, batch: Batch) -> None:
        """The fold has committed ``batch``."""
        self._sent.difference_update(batch.seen)
        if batch.effects:
            self._news.set()

    def wake(self) -> None:
        """There are new rows, from elsewhere than the fold."""
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled. Raises ViewUnavailable, BrokerUnavailable and what the broker's libraries raise; the
        next call begins with a barrier.
        """
        self._sent.clear()
        await self._leader.catch_up()
        while True:
            await self._publisher.link.connection()
            self._news.clear()
            rows = await self._unsent()
            if any(row.tries for row in rows):
                await self._leader.catch_up()
                rows = await self._unsent()
            if rows:
                await self._send(rows)
                continue
            await wait_for_stop(self._news, EVERY)

    async def _unsent(self) -> list[OutboxRow]:
        # What was under way before the look may be folded, and forgotten here, before the look comes back with it.
        under_way = frozenset(self._sent)
        due = await self._leader.call(self._leader.store.outbox.due, PAGE)
        return [row for row in due if row.id not in under_way]

    async def _send(self, rows: Sequence[OutboxRow]) -> None:
        waiting, sendable = await self._sendable(rows)
        self._sent.update(row.id for row, _ in sendable)
        results = await asyncio.gather(
            *(self._publisher.publish(event, row.keys) for row, event in sendable), return_exceptions=True
        )
        for (row, _), trouble in zip(sendable, results, strict=True):
            if trouble is None or (isinstance(trouble, QueueFull) and trouble.recorded):
                continue
            self._sent.discard(row.id)
            waiting.append((row, LONGEST_WAIT))
            log.warning("the effect %s was not confirmed and is put off: %s", row.id, trouble)
        await self._leader.call(
            self._leader.store.outbox.defer,
            {row.id: min(2.0 ** min(row.tries, 10), longest) for row, longest in waiting},
        )

    async def _sendable(
        self, rows: Sequence[OutboxRow]
    ) -> tuple[list[tuple[OutboxRow, float]], list[tuple[OutboxRow, JobEvent]]]:
        """Those that have to wait, each with the seconds it waits at most, and the others with their events."""
        waiting: list[tuple[OutboxRow, float]] = []
        sendable: list[tuple[OutboxRow, JobEvent]] = []
        depths: dict[str, Depth | None] = {}
        for row in rows:
            try:
                event = decode(row.event.encode())
            except UnreadableEvent as error:
                log.error("the effect %s waits for a newer program: %s", row.id, error)
                waiting.append((row, LONGEST_WAIT))
                continue
            if isinstance(event, Requeued):
                queue = event.data.order.queue
                if queue not in depths:
                    depths[queue] = await self._depth(queue, row.keys)
                depth = depths[queue]
                if depth is None:
                    waiting.append((row, LONGEST_WAIT))
                    continue
                if event.data.dropped is not None and not depth.consumers:
                    waiting.append((row, LONGEST_WAIT_FOR_CONSUMERS))
                    continue
            sendable.append((row, event.model_copy(update={"time": datetime.now(UTC)})))
        return waiting, sendable

    async def _depth(self, queue: str, keys: Sequence[str]) -> Depth | None:
        """How full the work queue is; None when it takes no work just now."""
        try:
            self._publisher.check_room(keys)
            depth = await self._leader.depth(queue)
        except (QueueFull, *BROKER_ERRORS) as error:
            log.warning("work for the queue %s waits: %s", queue, reason_of(error))
            return None
        if depth is None:
            log.warning("work for the queue %s waits: it is not on the broker; see `jobtape doctor`", queue)
        return depth
