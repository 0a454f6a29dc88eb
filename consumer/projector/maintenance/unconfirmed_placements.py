"""Places work again that the last active projector placed just before it died, and that the broker has lost.

Theory of operation. A placement goes to the tape and to its queue in one message. If its publisher dies before the
confirm, the broker may keep it on the tape and drop it from the queue: a quorum queue gives up what is still on its way
from a channel that has ended. The job is ``queued`` then, its work is nowhere, and it may keep an ordering key.

A projector that becomes active takes the latest placements on the tape whose job has had no event since. Such a job is
**in doubt**: its work waits on the queue, or with a worker, or is lost. An event of the job ends the doubt.
Otherwise its work is lost when all of this holds:

1. The queue has passed it: it is empty, or work that was put on it after the take-over has come off it, since a queue
   delivers in order.
2. Every consumer of the queue is a worker that has given a sign of life after that, ``MARGIN`` seconds later at least,
   and no sign names the job among those that wait in the worker. If a worker runs it, it has published ``started``.
3. The queue is still empty, if that was how 1. was found.

So work is not placed again while it exists, which matters for an ordering key: a second execution of the job could
overlap with the next one's.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.declare import Depth
from jobtape.broker.link import BROKER_ERRORS, reason_of
from jobtape.broker.tasks import run_all
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.placement import rescue
from jobtape.view.store import FoldedBatch

log = logging.getLogger(__name__)

LATEST_EVENTS: Final = 10_000
"""Events before the take-over among which the placements are that the last projector may not have had confirmed."""
CHECK: Final = 1.0
"""Seconds between two checks while jobs are in doubt."""
MARGIN: Final = 3.0
"""Seconds until a worker's sign shows what it had got: the time that signs are on their way and gathered (see
``WorkerRegistry``), and in which the start of an execution is folded."""
_AFTER_THE_QUEUE: Final = (JobState.RUNNING, JobState.RETRYING, JobState.SUCCEEDED, JobState.FAILED)


class UnconfirmedPlacements:
    """The service that settles the doubt about the last placements of other projectors."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._begun = asyncio.Event()
        self._watching = False
        self._up_to = 0
        self._doubts: dict[str, str] = {}
        """The queue of each job in doubt, by job id."""
        self._seen: set[str] = set()
        """While the view is being read: the jobs of which events were committed meanwhile."""
        self._later: dict[str, str] = {}
        """By queue: a job whose work was put on it after the take-over and is there still, as far as is known."""
        self._passed: set[str] = set()
        """The queues that work has come off which was put on them after the take-over."""

    def begin(self) -> None:
        """Doubt the placements up to now. Call it when all that others have published is folded, and before placing."""
        self._up_to = self._active.cursor
        self._watching = True
        self._begun.set()

    def notify(self, batch: FoldedBatch) -> None:
        """Take over what the fold has committed."""
        if not self._watching:
            return
        placed = {entry.job_id for entry in batch.history if entry.name in {"submitted", "placed"} and entry.accepted}
        for job in batch.jobs:
            self._seen.add(job.id)
            self._doubts.pop(job.id, None)
            if job.queue is None:
                continue
            known = self._later.get(job.queue) == job.id
            if job.state is JobState.QUEUED and not job.awaits_placement:
                if job.id in placed:
                    self._later.setdefault(job.queue, job.id)
                continue
            if known:
                del self._later[job.queue]
            if job.state in _AFTER_THE_QUEUE and (known or job.id in placed):
                self._passed.add(job.queue)

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable, TapeMissing and NotActive."""
        while True:
            await self._begun.wait()
            await self._read()
            passed_at: dict[str, float] = {}
            while self._doubts and not self._begun.is_set():
                await asyncio.sleep(CHECK)
                await self._check(passed_at)
            self._watching = self._begun.is_set()

    async def _read(self) -> None:
        for collection in (self._doubts, self._seen, self._later, self._passed):
            collection.clear()
        self._begun.clear()
        up_to = self._up_to
        found = await self._active.call(self._active.store.open_jobs.placed_last, max(0, up_to - LATEST_EVENTS), up_to)
        self._doubts = {job_id: queue for job_id, queue in found.items() if job_id not in self._seen}
        self._seen.clear()
        if self._doubts:
            log.info(
                "%d jobs were placed last before the take-over: checking that their work exists", len(self._doubts)
            )

    async def _check(self, passed_at: dict[str, float]) -> None:
        """Place lost work again. ``passed_at``: since when each queue has passed the jobs in doubt (the database's
        seconds since 1970).
        """
        self._seen.clear()
        # The moment before the depths: see ``JobRescuer``.
        moment = await self._active.call(self._active.store.checkpoint)
        if moment is None:
            return
        depths = {queue: await self._depth(queue) for queue in set(self._doubts.values())}
        for queue, depth in depths.items():
            if queue in self._passed or (depth is not None and depth.messages == 0):
                passed_at.setdefault(queue, moment.read_at)
            else:
                passed_at.pop(queue, None)
        workers = await self._active.call(self._active.store.worker_signs.all)
        waiting = {job_id for worker in workers for job_id in worker.sign.waiting}
        lost = []
        for job_id, queue in self._doubts.items():
            since, depth = passed_at.get(queue), depths[queue]
            if since is None or depth is None or moment.read_at < since + MARGIN or job_id in waiting:
                continue
            serving = [each for each in workers if queue in each.sign.queues]
            if len(serving) >= depth.consumers and all(each.seen_at.timestamp() > since + MARGIN for each in serving):
                lost.append(job_id)
        if lost:
            await self._place_again(lost)

    async def _depth(self, queue: str) -> Depth | None:
        try:
            return await self._active.depth(self._active.topology.work_queue(queue).name)
        except BROKER_ERRORS as error:
            log.info("the queue %s cannot be checked: %s", queue, reason_of(error))
            return None

    async def _place_again(self, lost: list[str]) -> None:
        await self._active.catch_up()  # what has been published about them meanwhile
        jobs = await self._active.call(self._active.store.jobs, [each for each in lost if each in self._doubts])
        await run_all(self._place(job) for job in jobs.values() if job.id in self._doubts)

    async def _place(self, job: Job) -> None:
        source, fence = self._active.topology.source, self._active.cursor
        event = rescue(job, "lost", source=source, time=datetime.now(UTC), fence=fence)
        del self._doubts[job.id]
        if event is not None:
            log.warning("the work of job %s was lost with the projector that placed it: placing it again", job.id)
            await self._active.publish(event)
