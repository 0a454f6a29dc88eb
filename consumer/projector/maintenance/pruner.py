"""Removes jobs that ended long ago, as JOBTAPE_JOB_RETENTION says, and old minutes of the statistics.

The rest of the tape may say that such a job was redriven. So each round first fixes the time before which jobs must
have ended, and then waits until everything that was on the tape at that time is folded. An import writes a tape window
by window, so nothing is removed while an import runs.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from jobtape.consumer.projector.active_projector import ActiveProjector, NotActive
from jobtape.process import clock
from jobtape.view.tallies import Ages

log = logging.getLogger(__name__)

EVERY: Final = 60.0
"""Seconds between two rounds."""
PAUSE: Final = 0.05
"""Seconds between two transactions, which leave the fold time for its own."""
TOMBSTONES_KEPT: Final = 90 * 86_400.0
"""Seconds. By default the longest delay and the retention of the tape together are shorter, so no event comes later."""


class Pruner:
    """The service that removes what is old. ``retention``: seconds for which jobs are kept after their end, 0 for
    ever.
    """

    def __init__(self, active: ActiveProjector, retention: float) -> None:
        self._active = active
        self._seconds = retention
        self._trimmed = 0
        """The minute up to which the statistics are in hours."""

    async def run(self) -> None:
        """Run until cancelled. Raises NotActive, ViewUnavailable and the errors of ``ActiveProjector.catch_up``."""
        while True:
            if self._seconds:
                await self._prune()
            ages = Ages(time.time())
            if ages.fine > self._trimmed:
                await self._trim(ages)
                self._trimmed = ages.fine
            await asyncio.sleep(min(EVERY, self._seconds / 4 or EVERY))

    async def _prune(self) -> None:
        retention, owner = self._active.store.retention, self._active.owner
        before = clock.now() - timedelta(seconds=self._seconds)
        await self._active.catch_up()
        if await self._active.call(retention.importing):
            return
        count, after = 0, ""
        while True:
            pruned = await self._active.call(retention.prune, owner, before, after)
            if pruned is None:
                raise NotActive
            count += pruned.jobs
            if pruned.last is None:
                break
            after = pruned.last
            await asyncio.sleep(PAUSE)
        if not await self._active.call(retention.prune_rest, owner, before, TOMBSTONES_KEPT):
            raise NotActive
        if count:
            log.info("removed %d jobs that ended before %s", count, before.isoformat(timespec="seconds"))

    async def _trim(self, ages: Ages) -> None:
        statistics, owner = self._active.store.statistics, self._active.owner
        for old in await self._active.call(statistics.old_hours, ages):
            if not await self._active.call(statistics.trim, owner, old, ages):
                raise NotActive
            await asyncio.sleep(PAUSE)
        if not await self._active.call(statistics.trim_rest, owner, datetime.now(UTC)):
            raise NotActive
