"""The source of a live subscription (without ``since``): a queue of its own on ``<ns>.results``.

Theory of operation. Relay and broker both deliver at least once. So a repeated event is recognised by its id, as long
as it is among the last 10,000. With a name the queue is durable and shared. Without one it exists for a minute longer
than its connection, so that a short loss of the connection loses no event.

Events are missed in two cases: the queue did not exist when this consumer reconnected, or it is full and drops its
oldest messages.
Both are checked when the consumer attaches and every ten seconds; the check also declares again what was removed.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from uuid import uuid4

import aiormq.exceptions

from jobtape.broker import declare
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.queue_consumer import Delivery, QueueConsumer
from jobtape.broker.tasks import cancel_and_wait, translate_cancellation
from jobtape.schemas.errors import BrokerUnavailable, EventsMissed, JobtapeError, SubscriptionRefused, UnreadableEvent
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.messages.delivered_event import DeliveredEvent, decode_delivered
from jobtape.schemas.topology import Bounds, Topology, result_patterns
from jobtape.schemas.urls import each_url

log = logging.getLogger(__name__)

OPEN_TIMEOUT: Final = 10.0
"""Seconds for attaching to the queue."""
CHECK_EVERY: Final = 10.0
"""Seconds between two checks of the queue and its bindings."""
RETRY_PAUSE: Final = 0.5
DECLARE_TIMEOUT: Final = 3.0
"""Seconds that a cluster may take to declare the queue."""
REPLACE_AFTER: Final = 2.0
"""Seconds for which the node of a queue without replicas may be away until another queue takes its place."""
CLOSE_TIMEOUT: Final = 2.0
REMEMBERED: Final = 10_000
EPHEMERAL_EXPIRES: Final = 60.0
"""Seconds after the loss of its connection until the queue of a subscription without a name is removed."""


class RecentIds:
    """The ids of the last ``limit`` events that were acknowledged."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}

    def add(self, event_id: str) -> None:
        """Add an id, and drop the oldest one beyond the limit."""
        self._ids[event_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids


class ResultQueueSource:
    """An ``EventSource``. ``prefetch``: how many events may wait in this process, out of reach of other consumers."""

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
        self._consuming: asyncio.Task[None] | None = None
        self._buffer: deque[Delivery] = deque()
        self._changed = asyncio.Event()
        self._attached = asyncio.Event()
        self._failure: JobtapeError | None = None
        self._fault: str | None = None
        self._current: Delivery | None = None
        self._acknowledged = RecentIds()
        self._cursor: int | None = None
        self._declared = self._full = False
        self._in_cluster = len(each_url(url)) > 1
        self._inaccessible_since: float | None = None
        """When the node that has the queue was found to be away, in seconds of ``time.monotonic``."""

    async def open(self) -> None:
        """Attach to the queue.

        Raises BrokerUnavailable when that takes longer than 10 s, and SubscriptionRefused for a name that is in use
        with another filter.
        """
        self._link.start()
        self._consuming = asyncio.create_task(self._consume_always(), name=f"subscription {self._queue.name}")
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                await self._attached.wait()
        except TimeoutError:
            why = self._link.fault or self._fault or "no answer in time"
            raise BrokerUnavailable(f"cannot subscribe to {self._topology.results.name}: {why}") from None
        if self._failure is not None:
            raise self._failure

    async def receive(self) -> DeliveredEvent:
        """Wait for the next event and return it. Raises EventsMissed."""
        while True:
            if self._failure is not None:
                raise self._failure
            if not self._buffer:
                self._changed.clear()
                await self._changed.wait()
                continue
            delivery = self._buffer.popleft()
            event = self._wanted_event(delivery)
            if event is not None:
                self._current = delivery
                return event
            await delivery.ack_all()

    async def acknowledge(self, event: DeliveredEvent) -> None:
        """Acknowledge the delivery. If its channel is gone, the event is delivered again, and dropped as a repeat."""
        self._acknowledged.add(event.id)
        self._cursor = max(self._cursor or 0, event.cursor)
        delivery, self._current = self._current, None
        if delivery is not None:
            await delivery.ack_all()

    async def close(self) -> None:
        """Disconnect; unacknowledged events return to the queue. A queue without a name is removed."""
        if self._consuming is not None:
            await cancel_and_wait(self._consuming)
        if self._name is None and self._link.up:
            with suppress(*BROKER_ERRORS):  # The queue expires then.
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await declare.delete_queue(await self._link.connection(), self._queue.name)
        await self._link.close()

    def _wanted_event(self, delivery: Delivery) -> DeliveredEvent | None:
        """Return the event of a delivery; None when it is a repeat, does not pass the filter or cannot be read."""
        try:
            event = decode_delivered(delivery.body)
        except UnreadableEvent as error:
            # If it stayed on the queue, it would be delivered again and again, before all others.
            log.error("dropped a message on %s that is no event (%s): %s", self._queue.name, error, delivery.message_id)
            return None
        labels = delivery.headers.get("labels")
        known = labels if isinstance(labels, Mapping) else {}
        fits = self._wanted.fits(event.name, event.job_id, event.job_type, event.correlation_id, known)
        return event if fits and event.id not in self._acknowledged else None

    async def _consume_always(self) -> None:
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
                self._fault = reason_of(error)
                log.warning("the subscription %s was interrupted: %s", self._queue.name, self._fault)
                self._replace_queue(error)
            await asyncio.sleep(RETRY_PAUSE)

    def _replace_queue(self, error: BaseException) -> None:
        """Use another queue when there is no name, and the node of the queue is away: such a queue has no replicas.

        RabbitMQ 3.10 says so, which a node also does for a moment after its start; RabbitMQ 4 does not answer for a
        minute (*tried*).
        """
        silent = isinstance(error, TimeoutError)
        away = isinstance(error, aiormq.exceptions.ChannelNotFoundEntity) and not declare.is_missing(error)
        if self._name is not None or not self._in_cluster or not (silent or away):
            self._inaccessible_since = None
            return
        now = time.monotonic()
        self._inaccessible_since = self._inaccessible_since or now
        if silent or now - self._inaccessible_since >= REPLACE_AFTER:
            # ``_declare`` reports that events may be missing, as for a queue that was removed.
            self._queue = self._topology.ephemeral_queue(uuid4().hex, self._bounds)
            self._inaccessible_since = None

    async def _consume(self, connection: Connection) -> None:
        await self._declare(connection)
        try:
            async with QueueConsumer(
                connection, [self._queue.name], prefetch=self._prefetch, deliver=self._add
            ) as consumer:
                self._attached.set()
                while not consumer.ended.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CHECK_EVERY):
                            await consumer.ended.wait()
                            return
                    await self._declare(connection)
        finally:
            # These messages are on the queue again, and the broker delivers them to whoever attaches next.
            self._buffer.clear()

    async def _declare(self, connection: Connection) -> None:
        async with asyncio.timeout(DECLARE_TIMEOUT if self._in_cluster else None):
            before = await declare.declare_subscription(connection, self._topology.results, self._queue, self._keys)
        full = before is not None and before.messages >= self._bounds.messages
        if before is None and self._declared:
            self._report_missed(
                "its queue was gone (removed or expired while the connection was lost, or its node is away)"
            )
        elif full and not self._full:
            self._report_missed(f"its queue is full ({self._bounds.messages} wait) and drops its oldest")
        self._declared, self._full = True, full

    def _report_missed(self, why: str) -> None:
        text = f"the subscription {self._name or self._queue.name} may have missed events: {why}"
        if not self._skip_gaps:
            start = f"since={self._cursor}" if self._cursor else "since='first', or a cursor that you have stored"
            raise EventsMissed(f"{text}; subscribe again with {start}", self._cursor)
        log.warning("%s", text)

    def _add(self, delivery: Delivery) -> None:
        self._buffer.append(delivery)
        self._changed.set()
