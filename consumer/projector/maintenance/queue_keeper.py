"""Declares our queues now and then, so that a policy (``expires``) does not delete those that nobody consumes.

Declaring a queue counts as using it, and looking at it does not. A work queue that is missing stays so: which there are
to be is a worker's business.
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


class QueueKeeper:
    """Declares as often as is fitting for ``rescue_after`` (seconds): what a deleted queue held seems lost."""

    def __init__(self, leader: Leader, rescue_after: float) -> None:
        self._leader = leader
        self._every = min(LONGEST_PAUSE, rescue_after / 8)

    async def run(self) -> None:
        """Until it is cancelled; raises what broker and view raise."""
        while True:
            await asyncio.sleep(self._every)
            queues = await self._leader.call(self._leader.store.open_queues)
            there = [queue for queue in queues if await self._leader.is_there(queue)]
            try:
                await declare.declare(await self._leader.link.connection(), self._leader.topology.with_queues(there))
            except JobtapeError as error:
                log.warning("our queues cannot be declared: %s", error)
                await asyncio.sleep(LONGEST_PAUSE)
