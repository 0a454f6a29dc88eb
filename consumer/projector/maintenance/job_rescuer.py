"""Finds jobs whose work has disappeared from the broker (a queue deleted, a disk restored), and puts it back.

Theory of operation. Work is on its queue, or with a worker, or done. With a worker it stays at most as long as the
broker waits for the acknowledgement; then it is back on the queue. So a job is lost when its queue was seen **empty**
at a moment when the job was due and its last event had been folded, when no event of it came since, and when that
moment is longer ago than work can stay away from its queue (``rescue_after``). The queue must be empty now too, and at
the look before (a broker that has no leader for a queue says that it is empty): where work waits, no job is lost. Hence
a deep backlog makes none, however old.

Moments are the database's time and the fold's cursor, so no clock of a worker's or producer's matters. They are kept
here only: after a change of the active projector, the wait begins again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.link import BROKER_ERRORS, reason_of
from jobtape.consumer.folding import outbox_row
from jobtape.consumer.projector.maintenance.leader import Leader
from jobtape.schemas.effects import MAX_RESCUES, rescue
from jobtape.schemas.job import Job
from jobtape.view.store import OpenJobsMoment

log = logging.getLogger(__name__)

LOST_AFTER: Final = 5400.0
"""Seconds: half an hour with a worker, which is the broker's acknowledgement time-out, and an hour on the ladder while
no worker knows the job type.
"""
PAGE: Final = 200
LONGEST_PAUSE: Final = 15.0
"""Seconds between two looks."""
MARKS: Final = 20
"""Moments kept of one queue, spread over ``rescue_after``."""


class QueueChecks:
    """When one queue was seen empty; ``patience`` in seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._marks: deque[OpenJobsMoment] = deque()
        self._was_empty = False

    def note(self, moment: OpenJobsMoment, empty: bool) -> OpenJobsMoment | None:
        """Note a look at ``moment``. The moment by which work must have come to its queue to be lost if nothing was
        came since; None while that is not known.
        """
        if self._marks and moment.now < self._marks[-1].now:
            self._marks.clear()  # the database's clock was set back
        twice, self._was_empty = empty and self._was_empty, empty
        if empty and (not self._marks or moment.now - self._marks[-1].now >= self._patience / MARKS):
            self._marks.append(moment)
        long_ago = moment.now - self._patience
        while len(self._marks) > 1 and self._marks[1].now <= long_ago:
            self._marks.popleft()
        return self._marks[0] if twice and self._marks[0].now <= long_ago else None


class JobRescuer:
    """``rescue_after``: seconds that work may be away from its queue without an event; ``wake``: call it when there are
    new effects.
    """

    def __init__(self, leader: Leader, wake: Callable[[], None], rescue_after: float) -> None:
        self._leader = leader
        self._wake = wake
        self._lost_after = rescue_after
        self._looks: dict[str, QueueChecks] = {}

    async def run(self) -> None:
        """Until it is cancelled; raises what broker and view raise."""
        while True:
            await asyncio.sleep(min(LONGEST_PAUSE, self._lost_after / 4))
            await self._look()

    async def _look(self) -> None:
        store = self._leader.store
        queues = await self._leader.call(store.open_jobs.queues)
        self._looks = {queue: self._looks.get(queue) or QueueChecks(self._lost_after) for queue in queues}
        for queue, looks in self._looks.items():
            # First the moment, then the look: what was folded before it had come to its queue by then.
            moment = await self._leader.call(store.open_jobs.moment)
            try:
                depth = await self._leader.depth(queue)
            except BROKER_ERRORS as error:  # one queue without a leader must not hold up the others
                log.info("the queue %s cannot be looked at: %s", queue, reason_of(error))
                depth = None
            if moment is None:
                return
            since = looks.note(moment, depth is not None and depth.messages == 0)
            if since is not None:
                await self._put_back(queue, since)

    async def _put_back(self, queue: str, since: OpenJobsMoment) -> None:
        due = datetime.fromtimestamp(since.now, UTC)
        after = ""
        overdue = self._leader.store.open_jobs.overdue
        while jobs := await self._leader.call(overdue, queue, due, since.cursor, after, PAGE):
            await self._add(queue, jobs)
            after = jobs[-1].id

    async def _add(self, queue: str, jobs: list[Job]) -> None:
        now, source = datetime.now(UTC), self._leader.topology.source
        placed_often = [job for job in jobs if job.placed > MAX_RESCUES]
        dropped = await self._leader.call(self._leader.store.open_jobs.dropped_placements, placed_often)
        effects = [rescue(job, "lost", source=source, time=now, dropped=dropped.get(job.id, 0)) for job in jobs]
        rows = [outbox_row(effect) for effect in effects if effect is not None]
        log.warning("%d jobs of the queue %s are lost: it is empty, and no event of them came since", len(jobs), queue)
        await self._leader.add(rows)
        self._wake()
