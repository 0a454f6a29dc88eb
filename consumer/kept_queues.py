"""Declares our queues now and then, so that a policy (``expires``) does not delete those that nobody consumes.

Declaring a queue counts as using it, and looking at it does not. A work queue that is missing stays so: which there are
to be is a worker's business.
"""

import asyncio
import logging
from typing import Final

from jobtape.broker import declare
from jobtape.consumer.desk import Desk
from jobtape.schemas.errors import JobtapeError

log = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 15.0
"""Seconds between two declarations."""


class KeptQueues:
    """Declares as often as is fitting for ``lost_after`` (seconds): what a deleted queue held seems lost."""

    def __init__(self, desk: Desk, lost_after: float) -> None:
        self._desk = desk
        self._every = min(LONGEST_PAUSE, lost_after / 8)

    async def run(self) -> None:
        """Until it is cancelled; raises what broker and view raise."""
        while True:
            await asyncio.sleep(self._every)
            queues = await self._desk.call(self._desk.store.open_queues)
            there = [queue for queue in queues if await self._desk.is_there(queue)]
            try:
                await declare.declare(await self._desk.link.connection(), self._desk.topology.with_queues(there))
            except JobtapeError as error:
                log.warning("our queues cannot be declared: %s", error)
                await asyncio.sleep(LONGEST_PAUSE)
