"""Places the work of jobs when it is due: of delayed, retried, redriven, deferred and held jobs. Cancels jobs
because of their unique or debounce keys.

Theory of operation. The view says which jobs await placement and when each is due (``Job.awaits_placement``); there is
no other list of timers. The placer reads the earliest of them, publishes the events that place the work of those that
are due, and sleeps until the next one is due or the fold has committed an earlier one. A cancelled job does not wait
any more, so nothing has to be removed. ``HeldJobs`` says which jobs with gates are placed next.

When a gate opens, a slot is unused until the next job has it. So the placer takes jobs from ``_recent`` instead of the
view then, and makes the next placements while up to ``UNCONFIRMED`` are not confirmed.

A job waits in the view until its ``placed`` has been folded. Meanwhile ``_unseen`` contains it, so that it is not
placed twice. A projector that becomes active may find jobs that another one has placed. So before it places anything
it publishes a **barrier** and waits until the fold has passed it. A failed publish has an *unknown* result: the tape
may have the event and the queue not. So the same event is repeated until both have it, and the queue gets nothing more
meanwhile. If this process dies before, the next active projector finds what the broker has lost
(``LostMessages``).

Work for a missing queue would be lost, so it waits for the queue. Work that the broker dropped waits until the queue
has a consumer; otherwise it would be dropped again. To a queue that has refused work one job is offered, then two, then
four. One queue does not delay the others.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final, get_args

from jobtape.broker import declare
from jobtape.broker.declare import Depth
from jobtape.broker.link import BROKER_ERRORS, reason_of
from jobtape.broker.tasks import cancel_and_wait, run_all, wait_for_stop
from jobtape.consumer.projector.active_projector import DEPTH_TIMEOUT, ActiveProjector, NotActive
from jobtape.consumer.projector.dispatch.held_jobs import HeldJobs
from jobtape.process import clock
from jobtape.schemas.errors import QueueFull, TapeMissing
from jobtape.schemas.events import Deferred, Dropped, Placed
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.events.placement import placement, placement_id
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.keyed_runs import RunToCancel
from jobtape.schemas.topology import CANCEL_KEY, work_key
from jobtape.telemetry import tracing
from jobtape.telemetry.work import ExecutionSpan, Work
from jobtape.view.store import DueJob, FoldedBatch, HeldJob

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Jobs placed at once."""
SMALL_PAGE: Final = 32
"""Jobs that are read when not all of the last ones were due, because then few are."""
UNCONFIRMED: Final = 32
"""Placements that may be unconfirmed while further ones are published."""
RECENT: Final = 1000
"""Held jobs that are kept as they were committed, if their payloads have at most ``RECENT_SIZE`` characters."""
RECENT_SIZE: Final = 4096
MAX_UNSEEN: Final = 4 * PAGE
"""Placements that the fold has not seen. With more the placer waits for the fold."""
POLL: Final = 1.0
"""Seconds between two queries when nothing is due."""
GATHER: Final = 0.03
"""Seconds from one query to the next, so that timers which are due one after the other are placed together. Without it
each is a query, a publish, and a commit of its own."""
CONFIRM_TIMEOUT: Final = 2.0
"""Seconds for the confirms of a page. Then the loop goes on with other queues."""
PAUSE: Final = 0.02
"""Seconds until the next query when nothing of what is due could be placed."""
CHECK_QUEUE: Final = 1.0
"""Seconds for which a queue that was found on the broker counts as present."""
KEEP_CHECKED: Final = 30.0
"""Seconds after a placement of a job with gates in which its queue is checked again in time, so that the next job does
not wait for that."""
CLOSED_PAUSE: Final = 2.0
"""Seconds until a queue that is missing, or has no consumer, is checked again."""


class JobPlacer:
    """The service that places the work of jobs that await it when it is due.

    It publishes over the connection of the services, so a queue that confirms nothing does not stop the fold.
    """

    def __init__(self, active: ActiveProjector) -> None:
        self._active = active
        self._publisher = active.publisher
        self._held = HeldJobs(active)
        self._unseen: dict[str, str] = {}
        """The event id of the placement that was published last, by job id."""
        self._changed = asyncio.Event()
        self._waiting = False
        self._lease_ended = False
        self._limit = PAGE
        self._read_at = 0.0
        """When the placer reads again which jobs wait, in seconds since 1970."""
        self._gather_until = 0.0
        """Not before this monotonic time."""
        self._recent: dict[str, Job] = {}
        """Held jobs by id, as the fold has committed them last."""
        self._closed: dict[str, float] = {}
        """Queues that take no work, with the monotonic time until which they are skipped."""
        self._unserved: dict[str, float] = {}
        """Queues without a consumer, which take no work that the broker dropped, in the same way."""
        self._present: dict[str, tuple[Depth, float]] = {}
        self._used: dict[str, float] = {}
        """Queues that are checked again and again, with the monotonic time until which."""
        self._repeats: set[asyncio.Task[None]] = set()
        self._confirms: set[asyncio.Task[Deferred | None]] = set()
        """The placements that are published and not confirmed."""
        self._window: dict[str, int] = {}
        """How many jobs are offered at once to a queue that has refused work."""

    def notify(self, batch: FoldedBatch) -> None:
        """Forget the placements that the fold has seen, and wake when it has committed a job that is due earlier."""
        full = len(self._unseen) >= MAX_UNSEEN
        if full:
            self._read_at = 0.0
        for job in batch.jobs:
            if job.id in self._unseen and not (job.awaits_placement and self._unseen[job.id] == placement_id(job)):
                del self._unseen[job.id]
            if job.gates is not None:
                self._remember(job)
            timed = job.awaits_placement and job.state is not JobState.HELD
            if timed and job.run_at is not None and job.run_at.timestamp() < self._read_at:
                self._read_at = job.run_at.timestamp()
                self._changed.set()
        for entry in batch.history:
            # One that was rejected changes no job: the job was cancelled while it was placed.
            if entry.job_id in self._unseen and f'"{self._unseen[entry.job_id]}"' in entry.event:
                del self._unseen[entry.job_id]
        if self._held.notify(batch.jobs, self._unseen) or full:
            self._changed.set()

    def _remember(self, job: Job) -> None:
        self._recent.pop(job.id, None)
        assert job.gates is not None
        if job.gates.rule:  # a pause may have ended
            self._read_at = 0.0
        elif (
            job.state is JobState.HELD
            and not job.awaits_follow_ups
            and len(self._recent) < RECENT
            and _is_small(job.payload)
        ):
            self._recent[job.id] = job

    def next_at(self) -> float:
        """Return when a held job may be placed although nothing is committed until then, in seconds since 1970; 0 while
        something is being placed.
        """
        at_work = not self._waiting or self._changed.is_set() or self._confirms or self._repeats
        return 0.0 if at_work else clock.time() + self._held.next_at() - clock.monotonic()

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, BrokerUnavailable and BROKER_ERRORS; call it again then."""
        self._unseen.clear()
        self._active.repeated.clear()
        self._recent.clear()  # of a time in which another projector may have been active
        self._read_at = 0.0
        self._waiting = self._lease_ended = False
        await self._active.catch_up()
        await self._held.load()
        checking = asyncio.create_task(self._keep_checked(), name="check queues")
        try:
            await self._place_all()
        finally:
            await cancel_and_wait(checking)
            for tasks in (self._confirms, self._repeats):
                for task in list(tasks):
                    await cancel_and_wait(task)

    async def _place_all(self) -> None:
        while True:
            if self._lease_ended:  # begin again, as another projector would
                raise NotActive("a placement was not repeated, because the lease was not renewed in time")
            await self._publisher.link.connection()
            self._changed.clear()
            rows: list[DueJob] = []
            if self._read_in() <= 0.0:
                self._read_at, self._gather_until = clock.time() + POLL, clock.monotonic() + GATHER
                rows = await self._read()
            now = clock.now()
            due = [row for row in rows if row.run_at <= now]
            if rows:
                self._read_at = 0.0 if due else min(self._read_at, rows[0].run_at.timestamp())
            if len(due) == len(rows) >= SMALL_PAGE:
                self._limit, self._gather_until = PAGE, 0.0
            else:
                self._limit = SMALL_PAGE
            if self._held.to_cancel:
                await self._cancel_duplicates()
            held = await self._held.take(min(PAGE, MAX_UNSEEN - len(self._unseen) - len(due)), self._closed)
            if due or held:
                await self._place([*due, *held])
            if due or held or self._held.to_cancel:
                continue
            seconds = self._read_in()
            if len(self._unseen) < MAX_UNSEEN:  # otherwise the fold wakes it
                seconds = min(seconds, self._held.next_at() - clock.monotonic())
            self._waiting = True
            if not self._changed.is_set():
                await wait_for_stop(self._changed, max(0.0, seconds))
            self._waiting = False

    def _read_in(self) -> float:
        """Return in how many seconds the placer reads again which jobs wait."""
        return max(self._read_at - clock.time(), self._gather_until - clock.monotonic())

    async def _read(self) -> list[DueJob]:
        """Return jobs that await placement, the earliest first, without those whose placement is on its way."""
        now = clock.monotonic()
        self._closed = {queue: until for queue, until in self._closed.items() if until > now}
        self._unserved = {queue: until for queue, until in self._unserved.items() if until > now}
        # A copy, because the fold may remove ids while the query still returns their rows.
        unseen = frozenset(self._unseen)
        limit = min(self._limit, MAX_UNSEEN - len(unseen))
        if limit <= 0:
            return []
        rows = await self._active.call(
            self._active.store.open_jobs.timed,
            len(unseen) + limit,
            {*self._closed, *self._held.rules.paused_queues},
            tuple(self._unserved),
            self._held.rules.paused_types,
        )
        return [row for row in rows if row.id not in unseen][:limit]

    async def _cancel_duplicates(self) -> None:
        """Cancel some of the runs that another job with the same unique or debounce key has closed."""
        await run_all(self._cancel(cancelling) for cancelling in await self._held.take_runs_to_cancel(PAGE))

    async def _cancel(self, cancelling: RunToCancel) -> None:
        gated, source = cancelling.gated, self._active.topology.source
        event = cancelled(
            gated.run,
            source=source,
            time=clock.now(),
            reason=cancelling.reason,
            duplicate_of=cancelling.instead,
        )
        # Workers only have to know if they may get its work.
        is_placed = gated.state is not JobState.HELD or gated.run.id in self._unseen
        await self._active.publish(event, (CANCEL_KEY,) if is_placed else ())

    async def _place(self, rows: Sequence[DueJob | HeldJob]) -> None:
        """Place what can be placed of ``rows``. What is not confirmed is repeated in a task of its own."""
        held = {row.id: row for row in rows if isinstance(row, HeldJob)}
        jobs = {row.id: self._recent[row.id] for row in rows if row.id in self._recent}
        if unknown := [row.id for row in rows if row.id not in jobs]:
            jobs |= await self._active.call(self._active.store.jobs, unknown)
        by_queue: dict[str, list[Job]] = defaultdict(list)
        now = clock.now()
        for row in rows:  # in the order in which they are due
            job = jobs.get(row.id)
            if job is not None and job.awaits_placement and job.queue is not None and (job.run_at or now) <= now:
                by_queue[job.queue].append(job)
        open_for = await asyncio.gather(*(self._open_for(queue, waiting) for queue, waiting in by_queue.items()))
        open_jobs = [job for each in open_for for job in each if job.order is not None]
        await self._held.charge(job for job in open_jobs if job.id not in held)
        placeable = [job for job in open_jobs if job.id not in held or self._held.is_unchanged(job.id)]
        placed = {job.id for job in placeable}
        for row in held.values():
            self._held.give_back(row, placed=row.id in placed, held=row.id in jobs and jobs[row.id].awaits_placement)
        if not placeable:
            await asyncio.sleep(PAUSE)
            return
        self._active.check_active()
        # The time of the events is that by which rates count, and nothing delays the publish after it.
        now = clock.now()
        self._held.delay(row for row in held.values() if row.id in placed)
        self._used |= {row.queue: clock.monotonic() + KEEP_CHECKED for row in held.values() if row.id in placed}
        for job in placeable:
            span = self._started_span(job)
            traceparent = None if span is None else span.traceparent
            topology, fence = self._active.topology, self._active.cursor
            event = placement(job, source=topology.source, time=now, fence=fence, traceparent=traceparent)
            assert event is not None
            self._unseen[job.id] = event.id
            task = asyncio.create_task(self._publisher.place(event, timeout=CONFIRM_TIMEOUT), name=f"place {job.id}")
            self._confirms.add(task)
            if span is not None:
                task.add_done_callback(partial(_end_span, span))
            task.add_done_callback(partial(self._on_published, event, held.get(job.id)))
        refusing = by_queue.keys() & self._window.keys()
        if refusing or len(self._confirms) > UNCONFIRMED:
            await asyncio.wait(self._confirms)
        for queue in refusing:
            self._grow_window(queue)

    def _started_span(self, job: Job) -> ExecutionSpan | None:
        """Start the span of a placement that belongs to the trace of its job's submission: see ``Execution``."""
        if not job.run == job.attempt_due == 1 or job.flow is not None:
            return None
        destination = f"{self._active.topology.events.name}:{work_key(job.queue or '')}"
        return tracing.placing(destination, Work(job.id, job.type, 1, 1, job.correlation_id), job.traceparent)

    def _on_published(self, event: Placed, held: HeldJob | None, published: asyncio.Task[Deferred | None]) -> None:
        self._confirms.discard(published)
        if published.cancelled():
            return
        queue = event.data.order.queue
        if (error := published.exception()) is not None:
            log.warning("the placement %s was not confirmed: %s", event.id, error)
            self._active.repeated[queue] += 1
            task = asyncio.create_task(self._repeat(event, held), name=f"repeat {event.subject}")
            self._repeats.add(task)
            task.add_done_callback(self._repeats.discard)
        elif published.result() is not None:  # it was refused
            self._window[queue] = 1
            self._close(queue, CHECK_QUEUE)

    async def _repeat(self, event: Placed, held: HeldJob | None) -> None:
        try:
            await self._active.publish(event)
        except NotActive:
            self._lease_ended = True
            self._changed.set()
        except TapeMissing:  # nothing was recorded: the view still says that the job waits
            if self._unseen.get(event.subject) == event.id:  # otherwise its run has ended meanwhile
                del self._unseen[event.subject]
                if held is not None:
                    self._held.give_back(held, placed=False)
        finally:
            self._active.repeated[event.data.order.queue] -= 1

    def _grow_window(self, queue: str) -> None:
        try:
            self._publisher.check_room(queue)
        except QueueFull:
            self._close(queue, CHECK_QUEUE)
            return
        self._window[queue] *= 2
        if self._window[queue] >= PAGE:
            del self._window[queue]

    async def _open_for(self, queue: str, jobs: list[Job]) -> list[Job]:
        """Return those of ``jobs`` that the queue takes now."""
        if self._active.repeated[queue]:
            self._close(queue, CLOSED_PAUSE)
            return []
        try:
            self._publisher.check_room(queue)
            depth = await self._depth(queue)
        except (QueueFull, *BROKER_ERRORS) as error:
            log.warning("work for the queue %s waits: %s", queue, reason_of(error))
            self._close(queue, CLOSED_PAUSE)
            return []
        if depth is None:
            log.warning("work for the queue %s waits: it is not on the broker; see `jobtape doctor`", queue)
            self._close(queue, CLOSED_PAUSE)
            return []
        if not depth.consumers:
            self._unserved[queue] = clock.monotonic() + CLOSED_PAUSE
            jobs = [job for job in jobs if not _was_dropped(job)]
        return jobs[: self._window.get(queue, PAGE)]

    async def _depth(self, queue: str) -> Depth | None:
        known = self._present.get(queue)
        if known is not None and known[1] > clock.monotonic():
            return known[0]
        return await self._check(queue)

    async def _keep_checked(self) -> None:
        """Check the queues of jobs with gates before ``_depth`` has to."""
        while True:
            await asyncio.sleep(CHECK_QUEUE / 3)
            now = clock.monotonic()
            self._used = {queue: until for queue, until in self._used.items() if until > now}
            for queue in list(self._used):
                with suppress(*BROKER_ERRORS):  # then ``_depth`` checks it
                    await self._check(queue)

    async def _check(self, queue: str) -> Depth | None:
        depth = await self._active.depth(self._active.topology.work_queue(queue).name)
        if depth is not None:
            # Whoever declares it binds it a moment later. Work that is placed in between would only reach the tape.
            async with asyncio.timeout(DEPTH_TIMEOUT):
                await declare.bind_work_queue(await self._active.link.connection(), self._active.topology, queue)
        if depth is not None and depth.consumers:
            self._present[queue] = depth, clock.monotonic() + CHECK_QUEUE
        else:
            self._present.pop(queue, None)
        return depth

    def _close(self, queue: str, seconds: float) -> None:
        self._closed[queue] = clock.monotonic() + seconds
        self._present.pop(queue, None)


def _is_small(value: object) -> bool:
    """Return whether a JSON value is not larger than ``RECENT_SIZE``. Large values are not read to their end."""
    size, parts = 0, [value]
    while parts and size <= RECENT_SIZE:
        part = parts.pop()
        size += len(part) if isinstance(part, str | list | dict) else 1
        if size <= RECENT_SIZE and isinstance(part, list | dict):
            parts.extend(part if isinstance(part, list) else [*part, *part.values()])
    return size <= RECENT_SIZE


def _was_dropped(job: Job) -> bool:
    """Return whether the job's work waits because the broker dropped it."""
    return job.state is JobState.SCHEDULED and job.deferred_since is not None and job.reason in get_args(Dropped)


def _end_span(span: ExecutionSpan, published: asyncio.Task[Deferred | None]) -> None:
    error = None if published.cancelled() else published.exception()
    span.end(None if error is None else type(error).__name__)
