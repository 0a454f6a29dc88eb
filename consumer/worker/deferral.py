"""Defers work that this worker cannot do, or that is not due yet, by sending it through the delay ladder.

A worker may not know the job type, the payload's version or the event's version.

While a new version is rolled out, old workers get jobs that only new workers know. If such a job were given back to its
queue, RabbitMQ 4.3 would deliver it again at once, in an endless loop. So a copy is published to the ladder's first
exchange. Nothing goes to the tape, because no attempt was made. The copy has the same body; its headers count how often
it was deferred and keep the time of the first deferral.

Work can also arrive before it is due: a broker policy with ``message-ttl`` applies to the ladder too and shortens its
delays. Such work is deferred. The header ``jobtape-due`` holds the due time by the clock of the first worker that got
it, never later than the requested delay. So a worker with a wrong clock may run it late, but cannot defer it for ever.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from jobtape.broker.link import Link
from jobtape.broker.publisher import ExchangePublisher
from jobtape.broker.queue_consumer import Delivery
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.errors import BrokerUnavailable
from jobtape.schemas.events import CONTENT_TYPE, Retrying, WorkEvent
from jobtape.schemas.topology import Topology, queue_of

log = logging.getLogger(__name__)

COUNT_HEADER: Final = "jobtape-returns"
"""How often the work was deferred, which gave it back to the broker."""
FIRST_HEADER: Final = "jobtape-first-return"
"""Milliseconds since 1970 (floats in headers have only 32 bits) at which the work was deferred first."""
DUE_HEADER: Final = "jobtape-due"
"""Milliseconds since 1970 at which the work is due."""
EARLY: Final = 1.0
"""Seconds before the due time from which work is run, because clocks differ a little."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
PAUSE: Final = 0.5


class Deferral:
    """Defers work that other workers may know, for ``timeout`` seconds at most. ``now`` returns the time (UTC)."""

    def __init__(self, link: Link, topology: Topology, *, timeout: float, now: Callable[[], datetime]) -> None:
        self._topology = topology
        self._timeout = timeout
        self._now = now
        self._ladder = ExchangePublisher(link, topology.delay_exchange(topology.delay_levels - 1).name)

    def has_expired(self, delivery: Delivery) -> bool:
        """Return whether the work was deferred for longer than the time-out, so that no worker is likely to know it."""
        return self._milliseconds() - self._first(delivery.headers) >= self._timeout * 1000

    async def defer_unknown(self, delivery: Delivery) -> None:
        """Publish a copy that reaches its queue after a growing delay, wait for the confirm, then ack the delivery.

        Does nothing more when the delivery is lost meanwhile: the broker delivers it to another worker.
        """
        count = _natural(delivery.headers.get(COUNT_HEADER)) or 0
        delay = min(FIRST_DELAY * 2 ** min(count, 10), LONGEST_DELAY)
        await self._send(delivery, delay, {COUNT_HEADER: count + 1, FIRST_HEADER: self._first(delivery.headers)})

    def seconds_early(self, event: WorkEvent, delivery: Delivery) -> float:
        """Return the seconds until the work is due, 0 when it may run now."""
        due = event.data.next_at if isinstance(event, Retrying) else event.data.order.run_at
        if due is None or not self._topology.delay_levels:
            return 0.0
        now = self._milliseconds()
        requested = (due - event.time).total_seconds() * 1000
        until = min(due.timestamp() * 1000, now + requested)
        if (recorded := _natural(delivery.headers.get(DUE_HEADER))) is not None:
            until = min(until, recorded)
        remaining = (until - now) / 1000
        return remaining if remaining > EARLY else 0.0

    async def defer_early(self, delivery: Delivery, seconds: float) -> None:
        """Defer the delivery for ``seconds`` in the way of ``defer_unknown``."""
        kept = {name: n for name in (COUNT_HEADER, FIRST_HEADER) if (n := _natural(delivery.headers.get(name)))}
        await self._send(delivery, seconds, {**kept, DUE_HEADER: self._milliseconds() + round(seconds * 1000)})

    async def _send(self, delivery: Delivery, delay: float, headers: Mapping[str, int]) -> None:
        delay = min(delay, self._topology.longest_delay)
        key = delay_key(delay, queue_of(delivery.queue), self._topology.delay_levels)
        while delivery.can_be_settled:
            try:
                await self._ladder.publish(delivery.body, key, headers=headers, content_type=CONTENT_TYPE)
            except BrokerUnavailable as error:
                log.warning("a job that this worker cannot run now could not be deferred yet; trying again: %s", error)
                await asyncio.sleep(PAUSE)
            else:
                await delivery.ack()
                return

    def _first(self, headers: Mapping[str, Any]) -> int:
        now = self._milliseconds()
        first = _natural(headers.get(FIRST_HEADER))
        return now if first is None else min(first, now)

    def _milliseconds(self) -> int:
        return int(self._now().timestamp() * 1000)


def _natural(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
