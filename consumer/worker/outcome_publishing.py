"""Publishes an outcome until it is on the tape."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.intake import Delivery
from jobtape.broker.publisher import Publisher
from jobtape.broker.refused import WorkRefused
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.schemas.events import Cancelled, Failed, Retrying, Succeeded
from jobtape.schemas.topology import Topology

log = logging.getLogger(__name__)

PAUSE: Final = 0.5
"""Seconds until it is tried again."""
FULL_PAUSE: Final = 60.0
"""Seconds until more is offered to a full queue that too much waits for already."""


async def publish_outcome(
    publisher: Publisher, topology: Topology, outcome: Succeeded | Failed | Retrying | Cancelled, delivery: Delivery
) -> bool:
    """Until it is confirmed, however long the broker is away.

    False when the attempt is to be executed again: a ``retrying`` places the next attempt, and once the delivery is
    lost to us another worker has this attempt, and would place it a second time.
    """
    while True:
        cc: tuple[str, ...] = ()
        if isinstance(outcome, Retrying):
            if not delivery.is_ours:
                return False
            delay = max(0.0, (outcome.data.next_at - datetime.now(UTC)).total_seconds())
            cc = (delay_key(delay, outcome.data.order.queue, topology.delay_levels),)
        try:
            await publisher.publish(outcome, cc)
            return True
        except WorkRefused as refused:
            log.warning("the next attempt of %s waits for room in its queue: %s", outcome.subject, refused)
            if not refused.placing.cancelled():
                return await _placed(refused.placing, delivery)
            await asyncio.sleep(FULL_PAUSE)
        except (BrokerUnavailable, TapeMissing) as error:
            log.warning("the outcome of %s waits: %s", outcome.subject, error)
            await asyncio.sleep(PAUSE)


async def _placed(placing: "asyncio.Future[None]", delivery: Delivery) -> bool:
    """Whether the next attempt was placed while the delivery was ours; otherwise it is not placed any more."""
    try:
        while not placing.done() and delivery.is_ours:
            await asyncio.wait({placing}, timeout=PAUSE)
        return placing.done() and not placing.cancelled()
    finally:
        placing.cancel()
