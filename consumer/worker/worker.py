"""Runs jobs: takes them from the work queues, executes them, publishes the outcome, then acknowledges.

Theory of operation. A job may be delivered again at any time before its ack is with the broker, so the order is always:
outcome published and confirmed, **then** ack; ``_settle`` is the one place that does it. What comes again although it
was settled is acknowledged unrun; what comes again while it is still running here waits for that execution; what was
cancelled is acknowledged unrun, since its end is on the tape already. Consuming and publishing have a connection each,
because an alarm on the broker blocks a publishing connection entirely. No user code runs on this loop (see
``handlers``).

Every delivery ends acknowledged, given back, or lost with its channel, whatever goes wrong here (``_guarded``).

A slot is taken as long as a handler runs, also one whose job is settled already: cancelled, or past its time-out. Such
a handler is *unending*, which is logged, and reported as trouble once it is so with all of them.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from jobtape.broker import declare
from jobtape.broker.dead_queue import publish_dead
from jobtape.broker.intake import Delivery, Intake
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, lost_where_cancelled, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.broker.waiting import first_of, wait_for_stop
from jobtape.consumer.worker.backlog import Backlog
from jobtape.consumer.worker.cancellations import Cancellations
from jobtape.consumer.worker.deferral import Deferral
from jobtape.consumer.worker.execution import Execution, knows
from jobtape.consumer.worker.handlers import ExecutionUndone, Handlers
from jobtape.consumer.worker.outcome_publishing import publish_outcome
from jobtape.consumer.worker.settled import Key, RecentlySettled
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing, UnreadableEvent, WorkerStuck
from jobtape.schemas.events import Cancelled, Failed, Requeued, Retrying, Submitted, Succeeded, cancelled, decode
from jobtape.schemas.fold import evolve
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.timeouts import check_timeouts, longest_timeout, longest_wait
from jobtape.schemas.topology import Topology
from jobtape.schemas.work import WorkEvent, attempt_of, placement_of

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds until something that failed is tried again."""
BROKEN_PAUSE = 1.0
"""Seconds until a delivery that we could not handle goes back, so that it does not go round at full speed."""
SPARE_PREFETCH = 4
"""Deliveries beyond the concurrency, so that a slot that gets free has work at once. No more, and never more than there
are slots: what waits here counts against the acknowledgement time-out, which allows for one job's length, and is given
back when this worker dies."""
MIND_EVERY = 1.0
UNENDING = 5.0
"""Seconds for which a handler may run on after its job was settled, until that is logged."""
STUCK = 30.0
"""Seconds for which every slot may be taken by handlers that do not end, until this worker does."""
SUSPECT_FROM = 2
"""Deliveries in vain after which a job is a suspect: the worker died with it, and may have died of it. It also counts
those that were only prefetched, but two in a row are few enough to run them apart."""


class Worker:
    """Works on ``queues`` (default: those of ``job_types``) of ``topology``; ``grace``, ``ack_timeout`` and
    ``unknown_type_timeout`` (how long a job of a type that is not known here goes back, before it fails) in seconds.
    ``modules``: where the job types are, for processes of their own to import (default: where their functions are).

    Raises JobTypeInvalid when a job type's time-out does not fit the broker's acknowledgement time-out.
    """

    def __init__(
        self,
        url: str,
        topology: Topology,
        job_types: Mapping[str, JobTypeSpec],
        *,
        concurrency: int,
        grace: float,
        max_result: int,
        ack_timeout: float,
        name: str,
        queues: Sequence[str] | None = None,
        unknown_type_timeout: float = 3600.0,
        modules: Sequence[str] = (),
    ) -> None:
        check_timeouts(job_types.values(), longest_timeout(ack_timeout, grace))
        self.name = name
        self._topology = topology
        self._job_types = job_types
        self._grace = grace
        self._concurrency = concurrency
        self._queues = tuple(topology.queues if queues is None else queues)
        self._intake_link = Link(url, name=f"{topology.namespace} worker {name}", setup=self._declare)
        self._publisher = Publisher(Link(url, name=f"{topology.namespace} worker {name} (publishing)"), topology)
        self._cancels = Cancellations(self._publisher.link, topology, on_cancel=self._on_cancel)
        self._returns = Deferral(self._publisher.link, topology, patience=unknown_type_timeout, now=_now)
        self._handlers = Handlers(
            concurrency=concurrency,
            max_result=max_result,
            modules=modules or sorted({job_type.function.__module__ for job_type in job_types.values()}),
        )
        self._ack_timeout = ack_timeout
        self._line = Backlog(job_types, concurrency)
        self._stuck_handlers: dict[Execution, float] = {}
        self._unending_logged: set[Execution] = set()
        self._stuck = 0.0
        self._settled = RecentlySettled()
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._cancellable: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._closed = False
        self._trouble: str | None = "starting"

    @property
    def trouble(self) -> str | None:
        """Why no jobs are taken; None while they are."""
        return self._intake_link.trouble or self._publisher.link.trouble or self._trouble or self._no_slot_left()

    @property
    def stuck_handlers(self) -> int:
        """How many handlers run on although their jobs are settled or given back; after ``run``, also how many threads
        do that handlers have started by ``asyncio.to_thread``. The process must end without them.
        """
        return len(self._stuck_handlers) + (self._handlers.threads_left if self._closed else 0)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then drain: running jobs get the grace time, the rest goes back.

        Raises WorkerStuck, after draining too, when handlers that do not end leave nothing to work with.
        """
        self._intake_link.start()
        self._publisher.link.start()
        try:
            while not stop.is_set() and not self._handlers.given_up.is_set():
                connection = await first_of(self._intake_link.connection(), stop, self._handlers.given_up)
                if connection is None:
                    break
                try:
                    with lost_where_cancelled():
                        await self._take(connection, stop)
                except (BrokerUnavailable, TapeMissing, *BROKER_ERRORS) as error:
                    self._trouble = f"taking jobs was interrupted: {reason_of(error)}"
                    log.warning("%s", self._trouble)
                    await wait_for_stop(stop, PAUSE)
            await self._let_finish()  # what still runs when the broker went away before the end
        finally:
            await self._handlers.close()
            self._closed = True
            await self._publisher.close()
            await self._intake_link.close()
        if self._handlers.given_up.is_set():
            raise WorkerStuck(self._handlers.why_given_up)

    async def _declare(self, connection: Connection) -> None:
        await declare.declare(connection, self._topology)

    async def _take(self, connection: Connection, stop: asyncio.Event) -> None:
        """Take deliveries until the channel ends (then the caller starts again) or ``stop`` is set (then drain)."""
        await self._declare(connection)  # a queue may have been deleted meanwhile
        names = [self._topology.work_queue(queue).name for queue in self._queues]
        prefetch = self._concurrency + min(self._concurrency, SPARE_PREFETCH)
        cancellations = await first_of(self._cancels.catch_up(connection), stop)
        if cancellations is None:
            return
        async with (
            self._cancels.following(connection, cancellations),
            Intake(connection, names, prefetch=prefetch, deliver=self._on_delivery) as intake,
        ):
            self._trouble = None
            log.info("taking jobs from %s", ", ".join(self._queues))
            await first_of(self._watch(intake), stop, self._handlers.given_up)
            ending = stop.is_set() or self._handlers.given_up.is_set()
            if ending:
                await self._drain(intake)
            self._line.clear()  # with the channel they go back to their queues
            if not ending:
                self._trouble = "the channel to the broker was closed"

    async def _watch(self, intake: Intake) -> None:
        """Until the channel ends: give back what has waited too long, and notice slots that do not come back."""
        self._stuck = 0.0
        while not await wait_for_stop(intake.ended, MIND_EVERY):
            for delivery in self._line.overdue():
                log.warning("a delivery has waited as long as the acknowledgement time-out allows and goes back")
                await delivery.give_back()
            self._log_unending()
            self._stuck = self._stuck + MIND_EVERY if len(self._stuck_handlers) >= self._concurrency else 0.0
            if self._stuck >= STUCK:
                self._handlers.give_up("every place is taken by a handler that does not end, long after its time-out")

    def _no_slot_left(self) -> str | None:
        if not self._stuck or len(self._stuck_handlers) < self._concurrency:
            return None
        return (
            f"every slot ({self._concurrency}) is taken by a handler that does not end although its job is settled: "
            f"the worker ends after {STUCK:g} s of that, to be started again; isolate=True makes a handler one that "
            "can be ended"
        )

    def _log_unending(self) -> None:
        now = time.monotonic()
        for execution, since in self._stuck_handlers.items():
            if now - since >= UNENDING and execution not in self._unending_logged:
                self._unending_logged.add(execution)
                log.warning(
                    "the handler of job %s (%s) still runs %.0f s after its job was settled, and keeps its slot until "
                    "it ends: %d of %d slots are taken so; isolate=True makes a handler one that can be ended",
                    execution.event.subject,
                    execution.order.type,
                    now - since,
                    len(self._stuck_handlers),
                    self._concurrency,
                )

    async def _drain(self, intake: Intake) -> None:
        self._trouble = "draining"
        self._draining = True
        await intake.stop_taking()
        for delivery in self._line.clear():
            await delivery.give_back()
        await self._let_finish()

    async def _let_finish(self) -> None:
        """Nothing new begins; what runs gets the grace time."""
        self._draining = True
        running = set(self._running.values())
        if running:
            log.info("stopping: %d running jobs have %g s to finish", len(running), self._grace)
            _, late = await asyncio.wait(running, timeout=self._grace)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d jobs did not finish in time and go back to their queue", len(late))
                await asyncio.wait(late, timeout=PAUSE)
        if self._tasks:  # on their way back or aside: a copy is out, and its original is to be acknowledged
            await asyncio.wait(self._tasks, timeout=PAUSE)

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            event = decode(delivery.body)
            if not isinstance(event, Submitted | Retrying | Requeued):
                raise UnreadableEvent(f"a {event.name} event on a work queue")
        except UnreadableEvent as error:
            newer = error.newer and not self._returns.is_over(delivery)
            away = self._returns.send_back(delivery) if newer else self._put_aside(delivery, str(error))
            self._spawn(delivery, away)
            return
        # At most the prefetch.
        self._line.add(delivery, event, longest_wait(self._ack_timeout, self._grace, event.data.order.timeout))
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        while not self._draining and (first := self._line.next()) is not None:
            self._begin(first.delivery, first.event)

    def _begin(self, delivery: Delivery, event: WorkEvent) -> None:
        key, order = (event.subject, event.data.run, attempt_of(event)), event.data.order
        if self._settled.covers(key, placement_of(event)):
            self._spawn(delivery, delivery.ack())
        elif (same := self._running.get(key)) is not None:
            # Its channel was lost while it ran; the execution goes on and settles for this delivery too.
            self._spawn(delivery, self._settle_with(same, key, delivery))
        elif self._cancels.runs.has(event.subject, event.data.run):
            self._spawn(delivery, self._leave_cancelled(event, delivery))
        elif early := self._returns.early(event, delivery):
            log.info(
                "job %s came %.1f s before it is due and goes back: see docs/reference/broker-policies.md",
                event.subject,
                early,
            )
            self._spawn(delivery, self._returns.defer(delivery, early))
        elif not knows(self._job_types.get(order.type), order) and not self._returns.is_over(delivery):
            self._spawn(delivery, self._returns.send_back(delivery))
        else:
            self._line.take_slot(order.type)
            task = self._spawn(delivery, self._settle(event, key, delivery))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))

    def _on_cancel(self, job_id: str, run: int) -> None:
        for key, task in self._running.items():
            if key[:2] == (job_id, run):
                # Not at once: a task that has not begun yet would never do, and never settle.
                asyncio.get_running_loop().call_soon(self._cancel, key, task)

    def _cancel(self, key: Key, task: "asyncio.Task[None]") -> None:
        if key in self._cancellable:  # otherwise the outcome is being published, and the tape decides
            log.info("job %s was cancelled: its handler is asked to end", key[0])
            task.cancel()

    def _spawn(self, delivery: Delivery, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._guarded(delivery, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, delivery: Delivery, work: Coroutine[Any, Any, None]) -> None:
        """``work``, which settles the delivery; an error of ours must not leave it neither settled nor given back, and
        neither must a cancellation that nobody here asked for.
        """
        try:
            await work
        except asyncio.CancelledError:
            if self._draining:  # it goes back with its channel
                raise
            log.exception("the work on a delivery was cancelled, and not by this worker; it goes back to its queue")
            await delivery.refuse()
        except Exception:
            log.exception("a delivery could not be handled, which is a fault of ours; it goes back to its queue")
            await asyncio.sleep(BROKEN_PAUSE)
            await delivery.refuse()

    async def _settle_with(self, same: "asyncio.Task[None]", key: Key, delivery: Delivery) -> None:
        await asyncio.wait({same})
        await (delivery.ack() if key in self._settled else delivery.give_back())

    async def _leave_cancelled(self, event: WorkEvent, delivery: Delivery) -> None:
        """Not run, and nothing published: its ``cancelled`` is on the tape. Unless somebody found the job lost, long
        after: then the tape has none (the broker died between the two streams), and gets the same event once more.
        """
        if isinstance(event, Requeued) and event.data.why == "lost":
            again = cancelled(evolve(None, event), source=self._topology.source, time=_now())
            await self._publish_outcome(again, delivery)
        await delivery.ack()

    async def _settle(self, event: WorkEvent, key: Key, delivery: Delivery) -> None:
        execution: Execution | None = None
        try:
            execution = Execution(
                event,
                source=self._topology.source,
                worker=self.name,
                note=self._publisher.publish,
                now=_now,
                longest_delay=self._topology.longest_delay,
                suspect=delivery.count >= SUSPECT_FROM,
            )
            outcome = await self._outcome(execution, key)
            if outcome is not None and not await self._publish_outcome(outcome, delivery):
                return
        except ExecutionUndone as error:
            log.warning("job %s goes back to its queue: %s", event.subject, error)
            await delivery.refuse()
            return
        finally:
            self._release_slot(event.data.order.type, execution)
        self._settled.add(key, placement_of(event))
        await delivery.ack()

    async def _outcome(self, execution: Execution, key: Key) -> Succeeded | Failed | Retrying | None:
        """None when the run was cancelled meanwhile: its end is on the tape, and this attempt has none."""
        self._cancellable.add(key)
        try:
            return await execution.run(self._handlers, self._job_types.get(execution.order.type))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not self._cancels.runs.has(*key[:2]):
                raise
            task.uncancel()
            return None
        finally:
            self._cancellable.discard(key)

    async def _publish_outcome(self, outcome: Succeeded | Failed | Retrying | Cancelled, delivery: Delivery) -> bool:
        """Meanwhile its slot stays taken, so that nothing piles up here; False: to be executed again."""
        return await publish_outcome(self._publisher, self._topology, outcome, delivery)

    def _release_slot(self, job_type: str, execution: Execution | None) -> None:
        """Once no handler of it runs: a thread that is past its time-out still takes its place."""
        if execution is None or execution.working is None or execution.working.done():
            self._line.release_slot(job_type)
            self._begin_waiting()
            return
        self._stuck_handlers[execution] = time.monotonic()

        def at_last(_: object) -> None:
            del self._stuck_handlers[execution]
            if execution in self._unending_logged:
                self._unending_logged.remove(execution)
                log.warning("the handler of job %s has ended: its slot is free again", execution.event.subject)
            self._line.release_slot(job_type)
            self._begin_waiting()

        execution.working.add_done_callback(at_last)

    async def _put_aside(self, delivery: Delivery, reason: str) -> None:
        log.error("a message on a work queue is no job and goes to %s: %s", self._topology.dead.name, reason)
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(30):
                await publish_dead(self._publisher.link, self._topology, delivery.body, reason)
            await delivery.ack()
            return
        await delivery.give_back()


def _now() -> datetime:
    return datetime.now(UTC)
