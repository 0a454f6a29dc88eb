"""Publishes the effects in the outbox, each until the fold has seen it on the tape.

Theory of operation. Only the fold deletes a row: when it finds the row's event on the tape. So a projector that becomes
active may find rows whose events are on the tape already: another projector has sent them, or an old tape is folded
again. Before it sends anything it publishes a **barrier** and waits until the fold has passed it. By then the fold has
deleted the rows of all events before the barrier, and the rows that remain are unsent. A failed publish has an
*unknown* result. Its row is deferred, and sent again only behind another barrier. Rows that the fold adds from then on
are new and are sent at once. Rows that were confirmed stay in the outbox until the fold reaches their events; ``_sent``
contains their ids meanwhile.

Work for a missing queue would be lost, so its row waits for the queue. Work that the broker dropped waits until the
queue has a consumer; otherwise it would be dropped again. When a work queue is full and refuses an event, the tape has
it, so the fold deletes the row. The ``Publisher`` then tries again to put the work on its queue, and further rows for
that queue wait. A row that fails does not delay other rows.
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
"""Effects in flight at most."""
POLL: Final = 1.0
"""Seconds between two queries for deferred rows."""
LONGEST_WAIT: Final = 30.0
LONGEST_WAIT_FOR_CONSUMERS: Final = 10.0


class EffectSender:
    """Sends over the leader's publisher, whose connection is its own: a queue that confirms nothing stops no fold."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._publisher = leader.publisher
        self._sent: set[str] = set()

    def notify(self, batch: Batch) -> None:
        """Forget the effects that the fold has seen, and send those that it has added."""
        self._sent.difference_update(batch.seen)
        if batch.effects:
            self._leader.effects_added.set()

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable and BROKER_ERRORS; call it again then."""
        self._sent.clear()
        await self._leader.catch_up()
        while True:
            await self._publisher.link.connection()
            self._leader.effects_added.clear()
            rows = await self._unsent()
            if any(row.tries for row in rows):
                await self._leader.catch_up()
                rows = await self._unsent()
            if rows:
                await self._send(rows)
                continue
            await wait_for_stop(self._leader.effects_added, POLL)

    async def _unsent(self) -> list[OutboxRow]:
        # A copy, because the fold may remove ids from ``_sent`` while the query still returns their rows.
        sent = frozenset(self._sent)
        due = await self._leader.call(self._leader.store.outbox.due, PAGE)
        return [row for row in due if row.id not in sent]

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
            log.warning("the effect %s was not confirmed and is deferred: %s", row.id, trouble)
        await self._leader.call(
            self._leader.store.outbox.defer,
            {row.id: min(2.0 ** min(row.tries, 10), longest) for row, longest in waiting},
        )

    async def _sendable(
        self, rows: Sequence[OutboxRow]
    ) -> tuple[list[tuple[OutboxRow, float]], list[tuple[OutboxRow, JobEvent]]]:
        """Divide ``rows`` into those that must wait, with the longest wait in seconds, and the others with events."""
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
        """Return how full the work queue is; None when it accepts no work now."""
        try:
            self._publisher.check_room(keys)
            depth = await self._leader.depth(self._leader.topology.work_queue(queue).name)
        except (QueueFull, *BROKER_ERRORS) as error:
            log.warning("work for the queue %s waits: %s", queue, reason_of(error))
            return None
        if depth is None:
            log.warning("work for the queue %s waits: it is not on the broker; see `jobtape doctor`", queue)
        return depth
