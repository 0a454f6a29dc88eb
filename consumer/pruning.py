"""Lets go of what ended long ago, as JOBTAPE_KEEP says; the active projector does it, from time to time."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from jobtape.consumer.desk import Desk, NotActive

log = logging.getLogger(__name__)

EVERY: Final = 60.0
"""Seconds between two rounds."""
PAUSE: Final = 0.05
"""Seconds between two transactions, so that the fold is not kept waiting."""
TOMBSTONES_KEPT: Final = 90 * 86_400.0
"""Seconds: longer than the longest delay and the tape's own retention together, by default; nothing is later."""


class Pruning:
    """``keep``: seconds for which a job is kept after it ended; 0 is for ever."""

    def __init__(self, desk: Desk, keep: float) -> None:
        self._desk = desk
        self._keep = keep

    async def run(self) -> None:
        """Until it is cancelled. Raises ViewUnavailable, and NotActive when another projector is the active one."""
        if not self._keep:
            await asyncio.get_running_loop().create_future()
        while True:
            await self._round()
            await asyncio.sleep(min(EVERY, self._keep / 4))

    async def _round(self) -> None:
        retention, owner = self._desk.store.retention, self._desk.owner
        before = datetime.now(UTC) - timedelta(seconds=self._keep)
        count, after = 0, ""
        while True:
            pruned = await self._desk.call(retention.prune, owner, before, after)
            if pruned is None:
                raise NotActive
            count += pruned.jobs
            if pruned.last is None:
                break
            after = pruned.last
            await asyncio.sleep(PAUSE)
        if not await self._desk.call(retention.prune_rest, owner, before, TOMBSTONES_KEPT):
            raise NotActive
        if count:
            log.info("%d jobs that ended before %s were removed", count, before.isoformat(timespec="seconds"))
