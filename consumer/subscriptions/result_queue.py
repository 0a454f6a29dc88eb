"""Live over AMQP: the source of a subscription without ``since``. A queue of its own on ``<ns>.results``.

Theory of operation. The relay publishes at least once and the broker delivers at least once, so a repeat is known by
its event id, as long as it is among the last 10,000. With a name the queue is durable and shared; without one it
outlives its connection by a minute, so that a short loss of the connection misses nothing.

What the broker cannot deliver any more was missed: the queue was gone when we came back, or is so full that it drops
its oldest. Both are looked for whenever we attach, and from time to time; the look also makes again what somebody
removed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from uuid import uuid4

from jobtape.broker import declare
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.queue_consumer import Delivery, QueueConsumer
from jobtape.broker.tasks import cancel_and_wait, translate_cancellation
from jobtape.schemas.delivered_event import DeliveredEvent, decode_delivered
from jobtape.schemas.errors import BrokerUnavailable, EventsMissed, JobtapeError, SubscriptionRefused, UnreadableEvent
from jobtape.schemas.selection import Selection, Traits
from jobtape.schemas.topology import Bounds, Topology, result_patterns

log = logging.getLogger(__name__)

OPEN_LIMIT: Final = 10.0
LOOK_EVERY: Final = 10.0
PAUSE: Final = 0.5
CLOSE_LIMIT: Final = 2.0
REMEMBERED: Final = 10_000
OUTLIVES: Final = 60.0
"""Seconds that the queue of an ephemeral subscription outlives its connection by."""


class RecentIds:
    """The last ``limit`` event ids that were settled."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}

    def add(self, event_id: str) -> None:
        """Remember it, and forget the oldest beyond the limit."""
        self._ids[event_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids


class ResultQueue:
    """A ``Source``. ``prefetch``: how many events may wait in this process, away from others of the same name."""

    def __init__(
        self,
        url: str,
        topology: Topology,
        wanted: Selection,
        *,
        name: str | None,
        bounds: Bounds,
        prefetch: int,
        skip_gaps: bool,
    ) -> None:
        self._topology = topology
        self._wanted = wanted
        self._name = name
        self._bounds = bounds
        self._prefetch = prefetch
        self._skip_gaps = skip_gaps
        if name is None:
            self._queue = topology.ephemeral_queue(uuid4().hex, bounds)
        else:
            self._queue = topology.subscription_queue(name, wanted.in_words(), bounds)
        self._keys = result_patterns(wanted.events, wanted.types)
        self._link = Link(url, name=f"{topology.namespace} subscription {name or ''}".strip())
        self._keeping: asyncio.Task[None] | None = None
        self._buffer: deque[Delivery] = deque()
        self._changed = asyncio.Event()
        self._attached = asyncio.Event()
        self._failure: JobtapeError | None = None
        self._trouble: str | None = None
        self._current: Delivery | None = None
        self._settled = RecentIds()
        self._cursor: int | None = None
        self._declared = self._full = False

    async def open(self) -> None:
        """Attach. Raises BrokerUnavailable when that takes longer than 10 s, SubscriptionRefused for a name that has
        another filter.
        """
        self._link.start()
        self._keeping = asyncio.create_task(self._keep(), name=f"subscription {self._queue.name}")
        try:
            async with asyncio.timeout(OPEN_LIMIT):
                await self._attached.wait()
        except TimeoutError:
            why = self._link.trouble or self._trouble or "no answer in time"
            raise BrokerUnavailable(f"cannot subscribe to {self._topology.results.name}: {why}") from None
        if self._failure is not None:
            raise self._failure

    async def hear(self) -> DeliveredEvent:
        """The next one. Raises EventsMissed."""
        while True:
            if self._failure is not None:
                raise self._failure
            if not self._buffer:
                self._changed.clear()
                await self._changed.wait()
                continue
            delivery = self._buffer.popleft()
            received = self._wanted_in(delivery)
            if received is not None:
                self._current = delivery
                return received
            await delivery.ack_all()

    async def settle(self, received: DeliveredEvent) -> None:
        """Acknowledge it. When its channel is gone it is delivered again, and known then, unless another gets it."""
        self._settled.add(received.id)
        self._cursor = max(self._cursor or 0, received.cursor)
        delivery, self._current = self._current, None
        if delivery is not None:
            await delivery.ack_all()

    async def close(self) -> None:
        """What is not settled goes back to the queue; that of an ephemeral subscription is removed."""
        if self._keeping is not None:
            await cancel_and_wait(self._keeping)
        if self._name is None and self._link.up:
            with suppress(*BROKER_ERRORS):  # it expires by itself then
                async with asyncio.timeout(CLOSE_LIMIT):
                    await declare.delete_queue(await self._link.connection(), self._queue.name)
        await self._link.close()

    def _wanted_in(self, delivery: Delivery) -> DeliveredEvent | None:
        try:
            received = decode_delivered(delivery.body)
        except UnreadableEvent as error:
            # It would come again for ever, and keep all others behind it.
            log.error("dropped a message on %s that is no event (%s): %s", self._queue.name, error, delivery.message_id)
            return None
        labels = delivery.headers.get("labels")
        traits = Traits(received.job_type, received.correlation_id, labels if isinstance(labels, Mapping) else {})
        fits = self._wanted.fits(received.name, received.job_id, lambda: traits)
        return received if fits and received.id not in self._settled else None

    async def _keep(self) -> None:
        while True:
            connection = await self._link.connection()
            try:
                with translate_cancellation():
                    await self._consume(connection)
            except (SubscriptionRefused, EventsMissed) as error:
                self._failure = error
                self._attached.set()
                self._changed.set()
                return
            except BROKER_ERRORS as error:
                self._trouble = reason_of(error)
                log.warning("the subscription %s was interrupted: %s", self._queue.name, self._trouble)
            await asyncio.sleep(PAUSE)

    async def _consume(self, connection: Connection) -> None:
        await self._declare(connection)
        try:
            async with QueueConsumer(
                connection, [self._queue.name], prefetch=self._prefetch, deliver=self._arrived
            ) as intake:
                self._attached.set()
                while not intake.ended.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY):
                            await intake.ended.wait()
                            return
                    await self._declare(connection)
        finally:
            # The broker has them again, and delivers them to whoever attaches next.
            self._buffer.clear()

    async def _declare(self, connection: Connection) -> None:
        before = await declare.declare_subscription(connection, self._topology.results, self._queue, self._keys)
        full = before is not None and before.messages >= self._bounds.messages
        if before is None and self._declared:
            self._missed("its queue was gone (removed, or expired while the connection was lost)")
        elif full and not self._full:
            self._missed(f"its queue is full ({self._bounds.messages} wait) and drops its oldest")
        self._declared, self._full = True, full

    def _missed(self, why: str) -> None:
        text = f"the subscription {self._name or self._queue.name} may have missed events: {why}"
        if not self._skip_gaps:
            stored = "a cursor that you have stored, or since='first': this consumer has settled nothing yet"
            raise EventsMissed(f"{text}; go on with since={self._cursor or stored}", self._cursor)
        log.warning("%s", text)

    def _arrived(self, delivery: Delivery) -> None:
        self._buffer.append(delivery)
        self._changed.set()
