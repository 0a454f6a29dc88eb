"""Runs jobs: takes them from the work queues, executes them, publishes the outcome, then acknowledges.

Theory of operation. The broker may deliver a job again at any time before it has the ack. So the outcome is published
and confirmed first, **then** the delivery is acked (``_execute``). A redelivery of an attempt that has finished here is
acked and not run. It runs only if the rescuer has placed the work again since: then the broker has lost the confirmed
outcome, in a crash between two writes to disk. A redelivery of an attempt that still runs here waits for that
execution. A delivery of a cancelled run is acked and not run, because its end is on the tape already. Consuming and
publishing use one connection each, because a broker alarm blocks a publishing connection completely. No user code runs
on this loop (see ``handlers``).

Every delivery ends acked, requeued, or lost with its channel, even when this code fails (``_run_or_reject``).

A handler keeps its slot as long as it runs, even when its delivery is settled already because the job was cancelled or
timed out (see ``stuck_handlers``).

The methods are in the order in which a delivery passes them: take, run, publish the outcome, settle.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from jobtape.broker import declare
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.broker.queue_consumer import Delivery, QueueConsumer
from jobtape.broker.tasks import cancel_and_wait, first_of, translate_cancellation, wait_for_stop
from jobtape.consumer.worker.backlog import Backlog
from jobtape.consumer.worker.cancellations import Cancellations
from jobtape.consumer.worker.execution import Execution, RecordFollowUps, knows
from jobtape.consumer.worker.handlers.handlers import ExecutionAborted, Handlers
from jobtape.consumer.worker.same_delay import SameDelay
from jobtape.consumer.worker.signs_of_life import SignsOfLife
from jobtape.consumer.worker.stuck_handlers import StuckHandlers
from jobtape.consumer.worker.unrunnable_work import UnrunnableWork
from jobtape.process import clock
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing, UnreadableEvent, WorkerStuck
from jobtape.schemas.events import (
    EncodedEvent,
    Placed,
    WorkEvent,
    decode_work,
    encoded,
    placement_number,
)
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.fold import evolve
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.queueing.lanes import LANES, lane_of
from jobtape.schemas.timeouts import check_timeouts, longest_timeout, longest_wait
from jobtape.schemas.topology import Topology, queue_of, work_key
from jobtape.telemetry import instruments

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds until something that failed is tried again."""
BROKEN_PAUSE = 1.0
"""Seconds until a delivery that this worker could not handle is rejected, so that it does not loop at full speed."""
SPARE_PREFETCH = 4
"""Deliveries beyond the concurrency, so that a free slot has work at once. No more than
the concurrency: the acknowledgement timeout of a waiting delivery runs, so at most one job may run before it."""
WATCH_INTERVAL = 1.0
"""Seconds between two checks of the backlog and of stuck handlers."""
SUSPECT_FROM = 2
"""A job is a suspect when so many of its deliveries came back, because a worker died or rejected them: the job may be
the cause. A delivery that had not started counts too: running a suspect in a process of its own costs little."""

REMEMBERED = 10_000
"""How many finished attempts a worker remembers."""

Key = tuple[str, int, int]
"""(job id, run, attempt)"""


class Worker:
    """Runs the jobs of all queues of ``topology``.

    ``grace``: seconds that running jobs get to finish when the worker stops. ``ack_timeout``: the broker's
    acknowledgement timeout in seconds. ``unknown_type_timeout``: seconds for which a job of an unknown type is
    deferred before it fails. ``modules``: the modules that isolated processes import to find the job types (default:
    the modules of their functions). ``record``: see ``Execution``. ``isolation``: see ``Handlers``.

    Raises JobTypeInvalid when a job type's timeout does not fit the broker's acknowledgement timeout.
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
        unknown_type_timeout: float = 3600.0,
        modules: Sequence[str] = (),
        record: RecordFollowUps | None = None,
        isolation: bool = True,
    ) -> None:
        check_timeouts(job_types.values(), longest_timeout(ack_timeout, grace))
        self.name = name
        self._topology = topology
        self._job_types = job_types
        self._grace = grace
        self._record = record
        self._concurrency = concurrency
        self._ack_timeout = ack_timeout
        self._intake_link = Link(
            url,
            name=f"{topology.namespace} worker {name}",
            setup=lambda connection: declare.declare(connection, topology),
        )
        self._publisher = Publisher(Link(url, name=f"{topology.namespace} worker {name} (publishing)"), topology)
        self._cancellations = Cancellations(
            self._publisher.link, topology, on_cancel=self._on_cancel, on_rules=self._on_rules
        )
        self._rules = self._cancellations.rules
        self._rules_changed = asyncio.Event()
        self._unrunnable = UnrunnableWork(
            self._publisher, self._publish_until_confirmed, unknown_type_timeout=unknown_type_timeout
        )
        self._handlers = Handlers(
            concurrency=concurrency,
            max_result=max_result,
            modules=modules or sorted({job_type.function.__module__ for job_type in job_types.values()}),
            isolation=isolation,
        )
        self._confirm_limit = SameDelay(
            self._publisher.timeout, lambda confirmed: confirmed.set_exception(TimeoutError())
        )
        self._backlog = Backlog(job_types, concurrency)
        self._stuck = StuckHandlers(concurrency)
        self._signs = SignsOfLife(
            self._publisher.link,
            topology,
            name=name,
            slots=concurrency,
            job_types=job_types,
            state=self._state,
            waiting=self._backlog.job_ids,
        )
        self._finished: OrderedDict[Key, int] = OrderedDict()
        """Attempts that have ended here, each with the number of its placement, which counts from 1."""
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._cancellable: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._closed = False
        self._fault: str | None = "starting"

    @property
    def fault(self) -> str | None:
        """The reason why no jobs are taken; None while they are."""
        return self._intake_link.fault or self._publisher.link.fault or self._fault or self._stuck.fault

    @property
    def stuck_handlers(self) -> int:
        """Number of handlers that still run although their jobs are settled or requeued. After ``run`` it includes
        the threads that handlers started with ``asyncio.to_thread``. The process must end without waiting for them.
        """
        return len(self._stuck) + (self._handlers.threads_left if self._closed else 0)

    def _state(self) -> tuple[Literal["alive", "draining"], str | None]:
        return ("draining", None) if self._draining else ("alive", self.fault)

    async def run(self, stop: asyncio.Event) -> None:
        """Run jobs until ``stop`` is set, then drain: running jobs get the grace time, other deliveries are requeued.

        Raises WorkerStuck, also after draining, when handlers that do not end take every slot.
        """
        self._intake_link.start()
        self._publisher.link.start()
        self._signs.start()
        try:
            while not stop.is_set() and not self._handlers.exit_requested.is_set():
                connection = await first_of(self._intake_link.connection(), stop, self._handlers.exit_requested)
                if connection is None:
                    break
                try:
                    with translate_cancellation():
                        await self._take(connection, stop)
                except (BrokerUnavailable, TapeMissing, *BROKER_ERRORS) as error:
                    self._fault = f"taking jobs was interrupted: {reason_of(error)}"
                    log.warning("%s", self._fault)
                    await wait_for_stop(stop, PAUSE)
            await self._let_finish()  # when the broker was lost before the stop, jobs may still run
            await self._signs.publish_stopped()
        finally:
            self._signs.end()
            await self._handlers.close()
            self._closed = True
            await self._publisher.close()
            await self._intake_link.close()
        if self._handlers.exit_requested.is_set():
            raise WorkerStuck(self._handlers.why_exit)

    async def _take(self, connection: Connection, stop: asyncio.Event) -> None:
        """Take deliveries until the channel ends (the caller then opens a new one) or ``stop`` is set (then drain)."""
        await declare.declare(connection, self._topology)  # a queue may have been deleted meanwhile
        queues = sorted(self._topology.queues, key=lambda queue: LANES.index(lane_of(queue)))
        names = [self._topology.work_queue(queue).name for queue in queues]
        prefetch = self._concurrency + min(self._concurrency, SPARE_PREFETCH)
        cancellations = await first_of(self._cancellations.catch_up(connection), stop)
        if cancellations is None:
            return
        async with (
            self._cancellations.following(connection, cancellations),
            QueueConsumer(connection, (), prefetch=prefetch, deliver=self._on_delivery) as intake,
        ):
            await self._consume(intake, names)
            self._fault = None
            log.info("taking jobs from %s", ", ".join(self._topology.queues))
            pausing = asyncio.create_task(self._follow_pauses(intake, names), name="pauses")
            try:
                await first_of(self._watch(intake), stop, self._handlers.exit_requested)
            finally:
                await cancel_and_wait(pausing)
            if stop.is_set() or self._handlers.exit_requested.is_set():
                self._fault = "draining"
                self._draining = True
                await intake.stop_consuming()
                for delivery in self._backlog.clear():
                    await delivery.requeue()
                await self._let_finish()
            else:
                self._fault = "the channel to the broker was closed"
            self._backlog.clear()  # closing the channel requeues these deliveries

    async def _consume(self, intake: QueueConsumer, names: Sequence[str]) -> None:
        """Consume the queues ``names`` that are not paused, and no others."""
        for name in names:
            if name in intake.consumed and queue_of(name) in self._rules.paused_queues:
                log.info("the queue %s is paused", name)
                await intake.cancel(name)
            elif name not in intake.consumed and queue_of(name) not in self._rules.paused_queues:
                # While an outcome is confirmed and the next delivery comes, jobs of the high lane have to be here, or
                # lower lanes take more than their part.
                is_high = lane_of(queue_of(name)) == "high"
                await intake.consume(name, prefetch=2 * self._concurrency if is_high else None)
        for waiting in self._backlog.remove(lambda each: queue_of(each.delivery.queue) in self._rules.paused_queues):
            await waiting.delivery.requeue()

    async def _follow_pauses(self, intake: QueueConsumer, names: Sequence[str]) -> None:
        while True:
            await self._rules_changed.wait()
            self._rules_changed.clear()
            try:
                await self._consume(intake, names)
            except BROKER_ERRORS as error:
                log.warning("a queue could not be paused or resumed, trying again: %s", reason_of(error))
                self._rules_changed.set()
                await asyncio.sleep(PAUSE)

    def _on_rules(self) -> None:
        self._rules_changed.set()
        for waiting in self._backlog.remove(lambda each: each.event.data.order.type in self._rules.paused_types):
            self._start_task(waiting.delivery, self._unrunnable.defer(waiting.event, waiting.delivery, "paused"))

    async def _watch(self, intake: QueueConsumer) -> None:
        """Requeue deliveries that wait too long and check for stuck handlers, until the channel ends."""
        while not await wait_for_stop(intake.ended, WATCH_INTERVAL):
            for delivery in self._backlog.overdue():
                log.warning("a delivery has waited as long as the acknowledgement timeout allows and is requeued")
                await delivery.requeue()
            if self._stuck.check():
                self._handlers.request_exit(
                    "every slot is taken by a handler that does not end, long after its timeout"
                )

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            event = decode_work(delivery.body)
        except UnreadableEvent as error:
            self._start_task(
                delivery,
                self._unrunnable.defer_newer(delivery, error)
                if error.newer
                else self._unrunnable.dead_letter(delivery, error),
            )
            return
        # The prefetch limits how many wait.
        self._backlog.add(delivery, event, longest_wait(self._ack_timeout, self._grace, event.data.order.timeout))
        self._start_next_jobs()

    def _start_next_jobs(self) -> None:
        while not self._draining and (first := self._backlog.next()) is not None:
            self._start(first.delivery, first.event)

    def _start(self, delivery: Delivery, event: WorkEvent) -> None:
        key, order = (event.subject, event.data.run, event.data.attempt), event.data.order
        if self._finished.get(key, 0) >= placement_number(event):
            self._start_task(delivery, delivery.ack())
        elif (same := self._running.get(key)) is not None:
            # The channel of the first delivery was lost. Its handler still runs here, and its end settles this one.
            self._start_task(delivery, self._settle_after(same, key, delivery))
        elif self._cancellations.runs.has(event.subject, event.data.run):
            self._start_task(delivery, self._ack_cancelled(event, delivery))
        elif order.type in self._rules.paused_types:
            self._start_task(delivery, self._unrunnable.defer(event, delivery, "paused"))
        elif queue_of(delivery.queue) in self._rules.paused_queues:
            self._start_task(delivery, delivery.requeue())
        elif not knows(self._job_types.get(order.type), order) and not self._unrunnable.is_too_old(event):
            self._start_task(delivery, self._unrunnable.defer(event, delivery))
        else:
            self._backlog.take_slot(order.type)
            self._running[key] = self._start_task(delivery, self._execute(event, key, delivery), key)

    async def _execute(self, event: WorkEvent, key: Key, delivery: Delivery) -> None:
        """Run the job, publish its outcome and ack the delivery."""
        execution: Execution | None = None
        if delivery.count:
            instruments.redeliveries.inc()
        try:
            execution = Execution(
                event,
                source=self._topology.source,
                worker=self.name,
                publish=self._publisher.publish,
                now=_now,
                suspect=delivery.count >= SUSPECT_FROM,
                record=self._record,
            )
            self._signs.executions[execution] = None
            outcome = await self._run(execution, key)
            if outcome is not None:
                await self._publish_until_confirmed(outcome)
        except ExecutionAborted as error:
            log.warning("job %s is executed again: %s", event.subject, error)
            await delivery.reject()
            return
        finally:
            self._release_slot(event.data.order.type, execution)
        self._finished[key] = placement_number(event)
        if len(self._finished) > REMEMBERED:
            self._finished.popitem(last=False)
        await delivery.ack()

    async def _run(self, execution: Execution, key: Key) -> EncodedEvent | None:
        """Run the handler and return the outcome. None when the run was cancelled meanwhile: its end is on the tape."""
        self._cancellable.add(key)
        try:
            queue = f"{self._topology.namespace}.{work_key(execution.order.queue)}"
            return await execution.run(self._handlers, self._job_types.get(execution.order.type), queue)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not self._cancellations.runs.has(*key[:2]):
                raise
            task.uncancel()
            return None
        finally:
            self._cancellable.discard(key)

    async def _publish_until_confirmed(self, outcome: EncodedEvent) -> None:
        """Publish an event until it is confirmed, however long the broker is away. The job keeps its slot meanwhile."""
        began = time.monotonic()
        confirmed = self._publisher.begin_encoded(outcome)
        self._confirm_limit.add(confirmed)
        try:
            await confirmed
            return instruments.publish_confirm.observe(time.monotonic() - began)
        except BROKER_ERRORS as error:
            log.debug("the outcome of %s is published again: %s", outcome.subject, reason_of(error))
        while True:
            try:
                return await self._publisher.publish_encoded(outcome)
            except (BrokerUnavailable, TapeMissing) as error:
                log.warning("the outcome of %s could not be published, trying again: %s", outcome.subject, error)
                await asyncio.sleep(PAUSE)

    def _release_slot(self, job_type: str, execution: Execution | None) -> None:
        """Release the slot as soon as the handler has ended: a thread that is past its timeout keeps its slot."""

        def release() -> None:
            if execution is not None:
                self._signs.executions.pop(execution, None)
            self._backlog.release_slot(job_type)
            self._start_next_jobs()

        if execution is None or execution.handler is None or execution.handler.done():
            release()
        else:
            execution.settled = True
            self._stuck.add(execution, release)

    async def _settle_after(self, same: "asyncio.Task[None]", key: Key, delivery: Delivery) -> None:
        await asyncio.wait({same})
        await (delivery.ack() if key in self._finished else delivery.requeue())

    async def _ack_cancelled(self, event: WorkEvent, delivery: Delivery) -> None:
        """Ack a delivery of a cancelled run. Publish nothing, because its ``cancelled`` event is on the tape.

        If the job was rescued as lost, the tape does not have that event, and it is published again: it reached the
        stream of cancellations, and the broker died before it reached the tape.
        """
        if isinstance(event, Placed) and event.data.why == "lost":
            repeated = cancelled(evolve(None, event), source=self._topology.source, time=_now())
            await self._publish_until_confirmed(encoded(repeated))
        await delivery.ack()

    def _start_task(
        self, delivery: Delivery, work: Coroutine[Any, Any, None], key: Key | None = None
    ) -> "asyncio.Task[None]":
        """Start ``work``, which settles the delivery. ``key``: where it is in ``_running`` until it ends."""
        task = asyncio.create_task(self._run_or_reject(delivery, work))
        self._tasks.add(task)

        def ended(_: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if key is not None:
                self._running.pop(key, None)

        task.add_done_callback(ended)
        return task

    async def _run_or_reject(self, delivery: Delivery, work: Coroutine[Any, Any, None]) -> None:
        """Await ``work``. If it fails, or is cancelled by something other than this worker, reject the delivery,
        which counts towards the delivery limit of the queue.
        """
        try:
            await work
        except asyncio.CancelledError:
            if self._draining:  # closing the channel requeues it
                raise
            log.exception("the task of a delivery was cancelled, but not by this worker: the delivery is rejected")
            await delivery.reject()
        except Exception:
            log.exception("a delivery could not be handled and is rejected: please report this bug in Jobtape")
            await asyncio.sleep(BROKEN_PAUSE)
            await delivery.reject()

    def _on_cancel(self, job_id: str, run: int) -> None:
        for key, task in self._running.items():
            if key[:2] == (job_id, run):
                # Not at once: a task that is cancelled before its first step would never settle its delivery.
                asyncio.get_running_loop().call_soon(self._cancel, key, task)

    def _cancel(self, key: Key, task: "asyncio.Task[None]") -> None:
        if key in self._cancellable:  # otherwise the outcome is being published, and the tape decides
            log.info("job %s was cancelled: its handler is requested to end", key[0])
            task.cancel()

    async def _let_finish(self) -> None:
        """Start no more jobs, and give running ones the grace time to finish."""
        self._draining = True
        running = set(self._running.values())
        if running:
            log.info("stopping: %d running jobs have %g s to finish", len(running), self._grace)
            _, late = await asyncio.wait(running, timeout=self._grace)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d jobs did not finish in time and are requeued", len(late))
                await asyncio.wait(late, timeout=PAUSE)
        # Deferred and dead-lettered deliveries: the copy is published, the original is not acked yet.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PAUSE)


def _now() -> datetime:
    return clock.now()
