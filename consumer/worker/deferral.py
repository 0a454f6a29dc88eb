"""What is not for this worker, or not yet, goes back by way of the delay ladder.

A job type, a payload's version or an event's version may not be known here.

While a new version is rolled out, old workers get jobs that only new ones know. Given back to the queue, such a job
would come again at once, and RabbitMQ 4.3 would go round with it for ever. So a copy is put on the ladder's first
exchange, past the tape: no attempt was made, and nothing has happened that anybody should read. The copy's body is the
same; its headers count the returns and keep the time of the first.

Work that is not due yet goes back too: a policy that lets messages expire (``message-ttl``) holds for the ladder as
well, and shortens its delays. The header ``jobtape-due`` says when it is due by the clock of the worker that met it
first, at most as far away as was asked for: workers whose clocks are wrong may run it late, and never put it off for
ever.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from jobtape.broker.intake import Delivery
from jobtape.broker.link import Link
from jobtape.broker.side_publisher import SidePublisher
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.errors import BrokerUnavailable
from jobtape.schemas.events import CONTENT_TYPE, Requeued, Retrying, Submitted
from jobtape.schemas.topology import Topology, queue_of

log = logging.getLogger(__name__)

RETURNS_HEADER: Final = "jobtape-returns"
FIRST_HEADER: Final = "jobtape-first-return"
"""Milliseconds since 1970: floats in headers are 32 bits long."""
DUE_HEADER: Final = "jobtape-due"
"""Likewise."""
EARLY: Final = 1.0
"""Seconds before it is due that work is done all the same: clocks differ a little."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
PAUSE: Final = 0.5


class Deferral:
    """Sends back what other workers may know, for ``patience`` seconds. ``now`` gives the time (UTC)."""

    def __init__(self, link: Link, topology: Topology, *, patience: float, now: Callable[[], datetime]) -> None:
        self._topology = topology
        self._patience = patience
        self._now = now
        self._ladder = SidePublisher(link, topology.delay_exchange(topology.delay_levels - 1).name)

    def is_over(self, delivery: Delivery) -> bool:
        """Whether it has been sent back for so long that nobody can be expected to know it any more."""
        return self._milliseconds() - self._first(delivery.headers) >= self._patience * 1000

    async def send_back(self, delivery: Delivery) -> None:
        """A confirmed copy that reaches the queue it came from after a while, then the ack. When the delivery is lost
        meanwhile, nothing more is done: the broker gives it to somebody else.
        """
        count = _whole(delivery.headers.get(RETURNS_HEADER)) or 0
        delay = min(FIRST_DELAY * 2 ** min(count, 10), LONGEST_DELAY)
        await self._send(delivery, delay, {RETURNS_HEADER: count + 1, FIRST_HEADER: self._first(delivery.headers)})

    def early(self, event: Submitted | Retrying | Requeued, delivery: Delivery) -> float:
        """Seconds until the work is due, 0 when it may be done now."""
        if isinstance(event, Retrying):
            due: datetime | None = event.data.next_at
        else:
            due = event.data.order.run_at
        if due is None or not self._topology.delay_levels:
            return 0.0
        now = self._milliseconds()
        asked = (due - event.time).total_seconds() * 1000
        until = min(due.timestamp() * 1000, now + asked)
        if (noted := _whole(delivery.headers.get(DUE_HEADER))) is not None:
            until = min(until, noted)
        left = (until - now) / 1000
        return left if left > EARLY else 0.0

    async def defer(self, delivery: Delivery, seconds: float) -> None:
        """Send it back as ``send_back`` does, for so long."""
        kept = {name: n for name in (RETURNS_HEADER, FIRST_HEADER) if (n := _whole(delivery.headers.get(name)))}
        await self._send(delivery, seconds, {**kept, DUE_HEADER: self._milliseconds() + round(seconds * 1000)})

    async def _send(self, delivery: Delivery, delay: float, headers: Mapping[str, int]) -> None:
        delay = min(delay, self._topology.longest_delay)
        key = delay_key(delay, queue_of(delivery.queue), self._topology.delay_levels)
        while delivery.is_ours:
            try:
                await self._ladder.publish(delivery.body, key, headers=headers, content_type=CONTENT_TYPE)
            except BrokerUnavailable as error:
                log.warning("a job that is not for this worker waits to go back: %s", error)
                await asyncio.sleep(PAUSE)
            else:
                await delivery.ack()
                return

    def _first(self, headers: Mapping[str, Any]) -> int:
        now = self._milliseconds()
        first = _whole(headers.get(FIRST_HEADER))
        return now if first is None else min(first, now)

    def _milliseconds(self) -> int:
        return int(self._now().timestamp() * 1000)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
