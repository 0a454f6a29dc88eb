"""Declares Jobtape's own queues again and again, because without them cancellations and dead messages are lost.

They can be missing because somebody deleted them, or because a policy (``expires``) did. RabbitMQ's documentation says
that declaring a queue again resets its expiry; 3.10.8 does not do so (tried), only a consumer does. A missing work
queue is not declared: which work queues exist is up to the workers.
"""

import asyncio
import logging
from typing import Final

from jobtape.broker import declare
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas.errors import JobtapeError

log = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 15.0
"""Seconds between two declarations."""


class QueueDeclarer:
    """Declares the queues at least eight times in ``rescue_after`` (seconds), after which jobs seem lost."""

    def __init__(self, active: ActiveProjector, rescue_after: float) -> None:
        self._active = active
        self._pause = min(LONGEST_PAUSE, rescue_after / 8)

    async def run(self) -> None:
        """Run until cancelled. Raises BROKER_ERRORS."""
        topology = self._active.topology.with_queues(())
        while True:
            await asyncio.sleep(self._pause)
            try:
                await declare.declare(await self._active.link.connection(), topology)
            except JobtapeError as error:
                log.warning("the queues of Jobtape cannot be declared again: %s", error)
                await asyncio.sleep(LONGEST_PAUSE)
