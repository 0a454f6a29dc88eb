"""Declares queues again that somebody has deleted, or that the broker has as a policy asks for (``expires``).

Without a queue of the ladder delayed jobs vanish, and without ``dead`` and ``unroutable`` what they are for. Declaring
does not keep a queue from expiring (*tried* on 3.10.8, though the documentation says so): only consuming it does, which
is not for us. A work queue that is missing stays so: which there are to be is a worker's business.
"""

import asyncio
import logging
from typing import Final

from jobtape.broker import declare
from jobtape.consumer.projector.maintenance.leader import Leader
from jobtape.schemas.errors import JobtapeError

log = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 15.0
"""Seconds between two declarations."""


class QueueRedeclarer:
    """Declares as often as is fitting for ``rescue_after`` (seconds): what finds no queue seems lost."""

    def __init__(self, leader: Leader, rescue_after: float) -> None:
        self._leader = leader
        self._every = min(LONGEST_PAUSE, rescue_after / 8)

    async def run(self) -> None:
        """Until it is cancelled; raises what the broker's libraries raise."""
        topology = self._leader.topology.with_queues(())
        while True:
            await asyncio.sleep(self._every)
            try:
                await declare.declare(await self._leader.link.connection(), topology)
            except JobtapeError as error:
                log.warning("our queues cannot be declared again: %s", error)
                await asyncio.sleep(LONGEST_PAUSE)
