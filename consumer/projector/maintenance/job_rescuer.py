"""Finds jobs whose work has disappeared from the broker (a queue was deleted, a disk restored), and places it again.

Theory of operation. The work of an open job is on its queue or with a worker. It stays with a worker at most until the
broker's acknowledgement timeout, then it is back on the queue. Let T be a moment at which a check found the queue
empty. A job of that queue is lost when all of this holds:

1. Its work was placed, and was due before T.
2. It has had no event after T.
3. T is longer ago than work can be away from its queue (``rescue_after``).
4. The last two checks found the queue empty. Two, because a broker without a leader for a queue reports it as empty.

While work waits on a queue, no job of that queue is lost, however old the backlog is.

Moments are the database's time and the cursor of the fold, so clocks of workers and producers do not matter. They are
in memory only: after a change of the active projector the wait starts again.
"""

import asyncio
import logging
from collections import deque
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.link import BROKER_ERRORS, reason_of
from jobtape.broker.tasks import run_all
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas.events.placement import rescue
from jobtape.schemas.job import Job
from jobtape.view.store import Checkpoint

log = logging.getLogger(__name__)

LOST_AFTER: Final = 3600.0
"""Seconds: half an hour with a worker, which is the broker's acknowledgement timeout, and as much again for safety."""
PAGE: Final = 200
"""Jobs that are read at once."""
LONGEST_PAUSE: Final = 15.0
"""Seconds between two checks of all queues."""
MOMENTS: Final = 20
"""How many moments are kept for a queue, spread over ``rescue_after``."""


class QueueChecks:
    """The moments at which one queue was empty. ``rescue_after`` is in seconds."""

    def __init__(self, rescue_after: float) -> None:
        self._rescue_after = rescue_after
        self._moments: deque[Checkpoint] = deque()
        self._was_empty = False

    def add(self, moment: Checkpoint, empty: bool) -> Checkpoint | None:
        """Add a check. Return T (see the module), or None when no job of the queue can be lost."""
        if self._moments and moment.read_at < self._moments[-1].read_at:
            self._moments.clear()  # The database's clock was set back.
        empty_twice, self._was_empty = empty and self._was_empty, empty
        if empty and (not self._moments or moment.read_at - self._moments[-1].read_at >= self._rescue_after / MOMENTS):
            self._moments.append(moment)
        long_ago = moment.read_at - self._rescue_after
        while len(self._moments) > 1 and self._moments[1].read_at <= long_ago:
            self._moments.popleft()
        return self._moments[0] if empty_twice and self._moments[0].read_at <= long_ago else None


class JobRescuer:
    """``rescue_after``: seconds that work may be away from its queue without an event."""

    def __init__(self, active: ActiveProjector, rescue_after: float) -> None:
        self._active = active
        self._rescue_after = rescue_after
        self._checks: dict[str, QueueChecks] = {}

    async def run(self) -> None:
        """Run until cancelled. Raises BrokerUnavailable, ViewUnavailable and BROKER_ERRORS."""
        while True:
            await asyncio.sleep(min(LONGEST_PAUSE, self._rescue_after / 4))
            await self._check_queues()

    async def _check_queues(self) -> None:
        store = self._active.store
        queues = await self._active.call(store.open_jobs.queues)
        self._checks = {queue: self._checks.get(queue) or QueueChecks(self._rescue_after) for queue in queues}
        for queue, checks in self._checks.items():
            # The moment before the depth: work of events folded by this moment is on the queue when its depth is read.
            moment = await self._active.call(store.checkpoint)
            try:
                depth = await self._active.depth(self._active.topology.work_queue(queue).name)
            except BROKER_ERRORS as error:  # A queue without a leader must not delay the others.
                log.info("the queue %s cannot be checked: %s", queue, reason_of(error))
                depth = None
            if moment is None:
                return
            since = checks.add(moment, depth is not None and depth.messages == 0)
            if since is not None:
                await self._rescue(queue, since)

    async def _rescue(self, queue: str, since: Checkpoint) -> None:
        due = datetime.fromtimestamp(since.read_at, UTC)
        after = ""
        while jobs := await self._active.call(
            self._active.store.open_jobs.overdue, queue, due, since.cursor, after, PAGE
        ):
            log.warning("%d jobs of the queue %s are lost: it is empty, and they have had no event", len(jobs), queue)
            await self._place_again(jobs)
            after = jobs[-1].id

    async def _place_again(self, jobs: list[Job]) -> None:
        now, source = datetime.now(UTC), self._active.topology.source
        fence = self._active.cursor
        events = [rescue(job, "lost", source=source, time=now, fence=fence) for job in jobs]
        await run_all(self._active.publish(event) for event in events if event is not None)
        await self._active.catch_up()  # otherwise the next check would find the same jobs
