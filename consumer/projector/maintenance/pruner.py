"""Removes what ended long ago, as JOBTAPE_JOB_RETENTION says; the active projector does it, from time to time.

That a job ended long ago is known only when all of the tape is folded: what it says next may be that the job was
redriven. So each round first fixes the time before which jobs must have ended, and then waits for what was on the tape
at that time. An import puts a whole tape there window by window, so while one goes on nothing is removed at all.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from jobtape.consumer.projector.maintenance.leader import Leader, NotActive

log = logging.getLogger(__name__)

EVERY: Final = 60.0
"""Seconds between two rounds."""
PAUSE: Final = 0.05
"""Seconds between two transactions, so that the fold is not kept waiting."""
TOMBSTONES_KEPT: Final = 90 * 86_400.0
"""Seconds: longer than the longest delay and the tape's own retention together, by default; nothing is later."""


class Pruner:
    """``keep``: seconds for which a job is kept after it ended; 0 is for ever."""

    def __init__(self, leader: Leader, keep: float) -> None:
        self._leader = leader
        self._keep = keep

    async def run(self) -> None:
        """Until it is cancelled. Raises what view and broker raise, and NotActive when another projector is the active
        one.
        """
        if not self._keep:
            await asyncio.get_running_loop().create_future()
        while True:
            await self._round()
            await asyncio.sleep(min(EVERY, self._keep / 4))

    async def _round(self) -> None:
        retention, owner = self._leader.store.retention, self._leader.owner
        before = datetime.now(UTC) - timedelta(seconds=self._keep)
        await self._leader.catch_up()
        if await self._leader.call(retention.importing):
            return
        count, after = 0, ""
        while True:
            pruned = await self._leader.call(retention.prune, owner, before, after)
            if pruned is None:
                raise NotActive
            count += pruned.jobs
            if pruned.last is None:
                break
            after = pruned.last
            await asyncio.sleep(PAUSE)
        if not await self._leader.call(retention.prune_rest, owner, before, TOMBSTONES_KEPT):
            raise NotActive
        if count:
            log.info("%d jobs that ended before %s were removed", count, before.isoformat(timespec="seconds"))
