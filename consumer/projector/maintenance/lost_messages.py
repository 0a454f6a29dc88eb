"""Places work again that the broker has on the tape and has lost on its way to the work queue.

Theory of operation. A submission or a placement goes to the tape and to its queue in one message. If its publisher (an
API process, a worker, a forwarder, a client, a projector) dies before the confirm, the broker may keep it on the tape
and drop it from the queue: a quorum queue gives up what is still on its way from a channel that has ended. The job is
``queued`` then, its work is nowhere, and it may keep an ordering key.

The work of a ``queued`` job waits on the queue, or with a worker, or is lost. It is lost when all of this holds:

1. The queue has passed it: it is empty, or work that was placed ``DISORDER`` seconds later has come off it, since a
   queue delivers in order. The messages of two publishers may come to the tape in one order and to the queue in the
   other, and work at the head of its queue may wait long for a free worker.
2. After that, for ``MARGIN`` seconds at least, each consumer of the queue has been a worker whose signs of life do not
   name the job. A worker names the jobs that it has taken. If it runs one, it publishes ``started`` too.
3. The queue is still empty, if that was how 1. was found.

Work that a worker returns comes to the head of its queue. So whenever a worker has named a job, or a worker of the
queue has gone, only what was placed after that proves that the queue has passed.

So work is not placed again while it exists, except in races of seconds. That matters for an ordering key: a second
execution of the job could overlap with the next one's.

Jobs that a worker has begun, and queues with other consumers, are left to ``JobRescuer``.
"""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from jobtape.broker.declare import Depth
from jobtape.broker.link import BROKER_ERRORS, reason_of
from jobtape.broker.tasks import run_all
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.consumer.projector.maintenance.placed_jobs import MOST, REFILL_BELOW, PlacedJobs
from jobtape.schemas.events.placement import rescue
from jobtape.schemas.job import JobState
from jobtape.schemas.messages.worker_sign import MOST_WAITING, WorkerSign
from jobtape.view.store import Checkpoint, FoldedBatch, SeenWorker

log = logging.getLogger(__name__)

CHECK: Final = 1.0
"""Seconds between two checks."""
SETTLE: Final = 3.0
"""Seconds after a placement in which its job is not examined: nearly all jobs have begun by then."""
DISORDER: Final = 1.0
"""Seconds between two placements after which their work comes to the queue in the order of the tape."""
MARGIN: Final = 3.0
"""Seconds until a worker's sign shows what it had got: the time that signs are on their way and gathered (see
``WorkerRegistry``), and in which the start of an execution is folded."""
_AFTER_THE_QUEUE: Final = (JobState.RUNNING, JobState.RETRYING, JobState.SUCCEEDED, JobState.FAILED)
_PLACEMENTS: Final = ("submitted", "redriven", "placed")


class _Queue:
    """One queue: its jobs, since when (the database's seconds since 1970) each was found to be neither on the queue nor
    named by a worker, and the workers that served it at the last check.
    """

    def __init__(self) -> None:
        self.jobs = PlacedJobs()
        self.missing: dict[str, float] = {}
        self.workers: frozenset[str] = frozenset()


class LostMessages:
    """The service that finds jobs that are ``queued`` while their work is nowhere."""

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._tracking = False
        self._queues: defaultdict[str, _Queue] = defaultdict(_Queue)
        self._moments: deque[tuple[float, int]] = deque()
        """Monotonic times of the last checks, with the cursors up to which the tape was folded then."""

    def notify(self, batch: FoldedBatch) -> None:
        """Take over what the fold has committed."""
        if not self._tracking:
            return
        behind = self._folded_before(DISORDER)
        gated = {job.id for job in batch.jobs if job.gates is not None}
        placed = {
            entry.job_id: entry.cursor
            for entry in batch.history
            # A submission with gates places no work. The job of a flow may end without ever having been on its queue.
            if entry.accepted and entry.name in _PLACEMENTS and (entry.name != "submitted" or entry.job_id not in gated)
        }
        for job in batch.jobs:
            if job.queue is None:
                continue
            jobs = self._queues[job.queue].jobs
            if job.state is not JobState.QUEUED or job.awaits_placement or job.imported:
                # Work that was placed again may exist twice, so that it does not show how far the queue is. That of an
                # imported job was never on it.
                came_off = job.state in _AFTER_THE_QUEUE and not job.rescues and not job.imported
                jobs.remove(job.id, came_off=came_off, behind=behind if job.id in placed else -1)
            elif (cursor := placed.get(job.id)) is not None:
                jobs.place(job.id, cursor, behind=behind)

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable, TapeMissing and NotActive."""
        self._queues.clear()
        self._moments.clear()
        self._tracking = True
        try:
            for name in await self._active.call(self._active.store.open_jobs.queues):
                self._queues[name].jobs.complete = False
            start = await self._active.call(self._active.store.checkpoint)
            begun = 0 if start is None else start.cursor
            for name in list(self._queues):
                # Before this the signs of life were not examined.
                await self._read(name, since=begun)
            while True:
                await asyncio.sleep(CHECK)
                for name, queue in list(self._queues.items()):
                    if not queue.jobs.complete and len(queue.jobs) < REFILL_BELOW:
                        await self._read(name, since=0)
                await self._check()
        finally:
            self._tracking = False

    async def _read(self, name: str, *, since: int) -> None:
        jobs = self._queues[name].jobs
        jobs.begin_to_read()
        read = await self._active.call(self._active.store.open_jobs.placed, name, MOST)
        jobs.add(read, since=since, complete=len(read) < MOST)

    def _settled(self) -> int:
        """Return up to which cursor jobs are old enough to be examined."""
        now = time.monotonic()
        self._moments.append((now, self._active.cursor))
        while len(self._moments) > 1 and self._moments[1][0] <= now - max(SETTLE, DISORDER):
            self._moments.popleft()
        return self._folded_before(SETTLE)

    def _folded_before(self, seconds: float) -> int:
        """Return a cursor up to which the tape was folded so long ago; -1 if none is known."""
        then = time.monotonic() - seconds
        return next((cursor for at, cursor in reversed(self._moments) if at <= then), -1)

    async def _check(self) -> None:
        settled = self._settled()
        old: dict[str, _Queue] = {}
        for name, queue in self._queues.items():
            oldest = queue.jobs.oldest()
            if oldest is not None and oldest <= settled:
                old[name] = queue
            else:
                queue.missing.clear()
        if not old:
            return
        store = self._active.store
        # The moment before the depths: see ``JobRescuer``.
        moment = await self._active.call(store.checkpoint)
        workers = await self._active.call(store.worker_signs.all)
        if moment is None:
            return
        depths = await asyncio.gather(*(self._depth(name) for name in old))
        lost: dict[str, list[str]] = {}
        for (name, queue), depth in zip(old.items(), depths, strict=True):
            serving = [worker for worker in workers if name in worker.sign.queues]
            if found := _lost(queue, serving, depth, moment, settled):
                lost[name] = found
        if lost:
            await self._place_again(lost)

    async def _depth(self, queue: str) -> Depth | None:
        """Return how full the queue is; None when that is not known, or a placement for it is being repeated."""
        if self._active.repeated[queue]:
            return None
        try:
            return await self._active.depth(self._active.topology.work_queue(queue).name)
        except BROKER_ERRORS as error:
            log.info("the queue %s cannot be checked: %s", queue, reason_of(error))
            return None

    async def _place_again(self, lost: dict[str, list[str]]) -> None:
        await self._active.catch_up()  # what has been published about them meanwhile
        for name, found in lost.items():
            tracked = self._queues[name].jobs
            jobs = await self._active.call(self._active.store.jobs, [each for each in found if each in tracked])
            source, fence, now = self._active.topology.source, self._active.cursor, datetime.now(UTC)
            events = [rescue(job, "lost", source=source, time=now, fence=fence) for job in jobs.values()]
            for job_id in found:
                tracked.remove(job_id)
            if events:
                log.warning(
                    "the work of %d jobs is neither on their queue %s nor with a worker, perhaps because its publisher "
                    "was killed: placing it again. The first is %s",
                    len(events),
                    name,
                    next(iter(jobs)),
                )
            await run_all(self._active.publish(event) for event in events if event is not None)


def _named(sign: WorkerSign) -> list[str]:
    """Return the jobs that a worker has, by its sign of life."""
    return [*sign.waiting, *(each.job_id for each in sign.executions)]


def _lost(
    queue: _Queue, serving: Sequence[SeenWorker], depth: Depth | None, moment: Checkpoint, settled: int
) -> list[str]:
    """Note what a check has found of a queue, and return the ids of the jobs whose work is lost."""
    for job_id in {job_id for worker in serving for job_id in _named(worker.sign)}:
        if job_id in queue.jobs:
            queue.jobs.name(job_id, moment.cursor)
            queue.missing.pop(job_id, None)
    before, queue.workers = queue.workers, frozenset(worker.sign.id for worker in serving)
    if before - queue.workers:  # it has returned what it had
        queue.jobs.doubt_from(moment.cursor)
        queue.missing.clear()
    if depth is None:
        queue.missing.clear()
        return []
    missing = queue.jobs.not_on_queue(settled, empty=depth.messages == 0)
    queue.missing = {job_id: min(queue.missing.get(job_id, moment.read_at), moment.read_at) for job_id in missing}
    if len(serving) < depth.consumers or any(len(worker.sign.waiting) >= MOST_WAITING for worker in serving):
        return []
    oldest_sign = min((worker.seen_at.timestamp() for worker in serving), default=moment.read_at)
    return [
        job_id
        for job_id, since in queue.missing.items()
        if moment.read_at >= since + MARGIN and (not serving or oldest_sign > since + MARGIN)
    ]
