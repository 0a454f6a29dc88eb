"""Runs jobs: takes them from the work queues, executes them, publishes the outcome, then acknowledges.

Theory of operation. The broker may deliver a job again at any time before it has the ack. So the outcome is published
and confirmed first, **then** the delivery is acked; ``_settle`` is the only place that does it. A redelivery of an
attempt that has finished here is acked and not run. A redelivery of an attempt that still runs here waits for that
execution. A cancelled run is acked and not run, since its end is on the tape already. Consuming and
publishing use one connection
each, because a broker alarm blocks a publishing connection completely. No user code runs on this event loop (see
``handlers``).

Every delivery ends acked, given back, or lost with its channel, even when this code fails (``_guarded``).

A handler keeps its slot as long as it runs, even when its delivery is settled already because the job was cancelled or
timed out. Such a handler is *stuck*. This is logged, and reported as trouble once every slot has a stuck handler.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from jobtape.broker import declare
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.publisher import Publisher, publish_dead_letter
from jobtape.broker.queue_consumer import Delivery, QueueConsumer
from jobtape.broker.refused_work import WorkRefused
from jobtape.broker.tasks import first_of, translate_cancellation, wait_for_stop
from jobtape.consumer.worker.backlog import Backlog
from jobtape.consumer.worker.cancellations import Cancellations
from jobtape.consumer.worker.deferral import Deferral
from jobtape.consumer.worker.execution import Execution, knows
from jobtape.consumer.worker.handlers import ExecutionUndone, Handlers
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing, UnreadableEvent, WorkerStuck
from jobtape.schemas.events import (
    Cancelled,
    Failed,
    Requeued,
    Retrying,
    Submitted,
    Succeeded,
    WorkEvent,
    attempt_of,
    cancelled,
    decode,
    placement_of,
)
from jobtape.schemas.fold import evolve
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.timeouts import check_timeouts, longest_timeout, longest_wait
from jobtape.schemas.topology import Topology

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds until something that failed is tried again."""
FULL_PAUSE = 60.0
"""Seconds until the next attempt is offered again to a queue that is full."""
BROKEN_PAUSE = 1.0
"""Seconds until a delivery that this worker could not handle goes back, so that it does not loop at full speed."""
SPARE_PREFETCH = 4
"""Deliveries beyond the concurrency, so that a free slot has work at once. There are never more of them than slots: a
delivery that waits here uses up its acknowledgement time-out, which allows for the length of one job."""
WATCH_INTERVAL = 1.0
"""Seconds between two checks of the backlog and of stuck handlers."""
LOG_STUCK_AFTER = 5.0
"""Seconds after its job was settled at which a handler that still runs is logged."""
STUCK = 30.0
"""Seconds after which this worker ends when every slot is taken by a handler that does not end."""
SUSPECT_FROM = 2
"""Lost deliveries from which a job is a suspect: the worker died while it had the job, and the job may be the cause.
Deliveries that were only prefetched count too; running such a job in a process of its own costs little."""

Key = tuple[str, int, int]
"""(job id, run, attempt)"""
REMEMBERED = 10_000


class RecentlyFinished:
    """The last ``size`` attempts whose outcome this worker put on the tape. Their redelivery (after a lost ack) is not
    run again.

    It is run again when the work was placed again after that: then the tape has lost the outcome, because the broker
    died between two writes to disk. Placements of a run are counted from 1.
    """

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._placements: OrderedDict[Key, int] = OrderedDict()

    def add(self, key: Key, placement: int) -> None:
        """Record that this placement of the attempt has finished, and drop the oldest entry beyond the size."""
        self._placements[key] = placement
        if len(self._placements) > self._size:
            self._placements.popitem(last=False)

    def covers(self, key: Key, placement: int) -> bool:
        """Return whether this placement of the attempt, or a later one, has finished."""
        return self._placements.get(key, 0) >= placement

    def __contains__(self, key: Key) -> bool:
        return key in self._placements


class Worker:
    """Runs the jobs of ``queues`` (default: all queues of ``topology``).

    ``grace``: seconds that running jobs get to finish when the worker stops. ``ack_timeout``: the broker's
    acknowledgement time-out in seconds. ``unknown_type_timeout``: seconds for which a job of an unknown type is
    deferred before it fails. ``modules``: the modules that isolated processes import to find the job types (default:
    the modules of their functions).

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
        self._deferral = Deferral(self._publisher.link, topology, timeout=unknown_type_timeout, now=_now)
        self._handlers = Handlers(
            concurrency=concurrency,
            max_result=max_result,
            modules=modules or sorted({job_type.function.__module__ for job_type in job_types.values()}),
        )
        self._ack_timeout = ack_timeout
        self._backlog = Backlog(job_types, concurrency)
        self._stuck_handlers: dict[Execution, float] = {}
        self._stuck_logged: set[Execution] = set()
        self._all_stuck_for = 0.0
        self._finished = RecentlyFinished()
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._cancellable: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._closed = False
        self._trouble: str | None = "starting"

    @property
    def trouble(self) -> str | None:
        """The reason why no jobs are taken; None while they are."""
        return self._intake_link.trouble or self._publisher.link.trouble or self._trouble or self._why_no_slot()

    @property
    def stuck_handlers(self) -> int:
        """Number of handlers that still run although their jobs are settled or given back. After ``run`` it includes
        the threads that handlers started with ``asyncio.to_thread``. The process must end without waiting for them.
        """
        return len(self._stuck_handlers) + (self._handlers.threads_left if self._closed else 0)

    async def run(self, stop: asyncio.Event) -> None:
        """Run jobs until ``stop`` is set, then drain: running jobs get the grace time, other deliveries go back.

        Raises WorkerStuck, also after draining, when handlers that do not end take every slot.
        """
        self._intake_link.start()
        self._publisher.link.start()
        try:
            while not stop.is_set() and not self._handlers.given_up.is_set():
                connection = await first_of(self._intake_link.connection(), stop, self._handlers.given_up)
                if connection is None:
                    break
                try:
                    with translate_cancellation():
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
        """Take deliveries until the channel ends (the caller then opens a new one) or ``stop`` is set (then drain)."""
        await self._declare(connection)  # a queue may have been deleted meanwhile
        names = [self._topology.work_queue(queue).name for queue in self._queues]
        prefetch = self._concurrency + min(self._concurrency, SPARE_PREFETCH)
        cancellations = await first_of(self._cancels.catch_up(connection), stop)
        if cancellations is None:
            return
        async with (
            self._cancels.following(connection, cancellations),
            QueueConsumer(connection, names, prefetch=prefetch, deliver=self._on_delivery) as intake,
        ):
            self._trouble = None
            log.info("taking jobs from %s", ", ".join(self._queues))
            await first_of(self._watch(intake), stop, self._handlers.given_up)
            ending = stop.is_set() or self._handlers.given_up.is_set()
            if ending:
                await self._drain(intake)
            self._backlog.clear()  # with the channel they go back to their queues
            if not ending:
                self._trouble = "the channel to the broker was closed"

    async def _watch(self, intake: QueueConsumer) -> None:
        """Give back deliveries that wait too long and look for stuck handlers, until the channel ends."""
        self._all_stuck_for = 0.0
        while not await wait_for_stop(intake.ended, WATCH_INTERVAL):
            for delivery in self._backlog.overdue():
                log.warning("a delivery has waited as long as the acknowledgement time-out allows and goes back")
                await delivery.requeue()
            self._log_stuck()
            self._all_stuck_for = (
                self._all_stuck_for + WATCH_INTERVAL if len(self._stuck_handlers) >= self._concurrency else 0.0
            )
            if self._all_stuck_for >= STUCK:
                self._handlers.give_up("every slot is taken by a handler that does not end, long after its time-out")

    def _why_no_slot(self) -> str | None:
        if not self._all_stuck_for or len(self._stuck_handlers) < self._concurrency:
            return None
        return (
            f"every slot ({self._concurrency}) is taken by a handler that does not end although its job is settled: "
            f"the worker ends after {STUCK:g} s of that, to be started again; isolate=True makes a handler one that "
            "can be ended"
        )

    def _log_stuck(self) -> None:
        now = time.monotonic()
        for execution, since in self._stuck_handlers.items():
            if now - since >= LOG_STUCK_AFTER and execution not in self._stuck_logged:
                self._stuck_logged.add(execution)
                log.warning(
                    "the handler of job %s (%s) still runs %.0f s after its job was settled, and keeps its slot until "
                    "it ends: %d of %d slots are taken so; isolate=True makes a handler one that can be ended",
                    execution.event.subject,
                    execution.order.type,
                    now - since,
                    len(self._stuck_handlers),
                    self._concurrency,
                )

    async def _drain(self, intake: QueueConsumer) -> None:
        self._trouble = "draining"
        self._draining = True
        await intake.stop_consuming()
        for delivery in self._backlog.clear():
            await delivery.requeue()
        await self._let_finish()

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
            newer = error.newer and not self._deferral.is_over(delivery)
            away = self._deferral.send_back(delivery) if newer else self._put_aside(delivery, str(error))
            self._spawn(delivery, away)
            return
        # At most the prefetch.
        self._backlog.add(delivery, event, longest_wait(self._ack_timeout, self._grace, event.data.order.timeout))
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        while not self._draining and (first := self._backlog.next()) is not None:
            self._begin(first.delivery, first.event)

    def _begin(self, delivery: Delivery, event: WorkEvent) -> None:
        key, order = (event.subject, event.data.run, attempt_of(event)), event.data.order
        if self._finished.covers(key, placement_of(event)):
            self._spawn(delivery, delivery.ack())
        elif (same := self._running.get(key)) is not None:
            # Its channel was lost while it ran; the execution goes on and settles for this delivery too.
            self._spawn(delivery, self._settle_after(same, key, delivery))
        elif self._cancels.runs.has(event.subject, event.data.run):
            self._spawn(delivery, self._ack_cancelled(event, delivery))
        elif early := self._deferral.early(event, delivery):
            log.info(
                "job %s came %.1f s before it is due and goes back: see docs/reference/broker-policies.md",
                event.subject,
                early,
            )
            self._spawn(delivery, self._deferral.defer(delivery, early))
        elif not knows(self._job_types.get(order.type), order) and not self._deferral.is_over(delivery):
            self._spawn(delivery, self._deferral.send_back(delivery))
        else:
            self._backlog.take_slot(order.type)
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
        """Await ``work``, which settles the delivery. If it fails, or is cancelled by something other than this worker,
        give the delivery back.
        """
        try:
            await work
        except asyncio.CancelledError:
            if self._draining:  # it goes back with its channel
                raise
            log.exception(
                "the task of a delivery was cancelled, but not by this worker; the delivery goes back to its queue"
            )
            await delivery.reject()
        except Exception:
            log.exception(
                "a delivery could not be handled, please report this bug in Jobtape; it goes back to its queue"
            )
            await asyncio.sleep(BROKEN_PAUSE)
            await delivery.reject()

    async def _settle_after(self, same: "asyncio.Task[None]", key: Key, delivery: Delivery) -> None:
        await asyncio.wait({same})
        await (delivery.ack() if key in self._finished else delivery.requeue())

    async def _ack_cancelled(self, event: WorkEvent, delivery: Delivery) -> None:
        """Ack a delivery of a cancelled run. Publish nothing, because its ``cancelled`` event is on the tape.

        If the job was rescued as lost, the tape does not have that event: the broker died between writing the two
        streams. Then the same event is published again.
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
            await delivery.reject()
            return
        finally:
            self._release_slot(event.data.order.type, execution)
        self._finished.add(key, placement_of(event))
        await delivery.ack()

    async def _outcome(self, execution: Execution, key: Key) -> Succeeded | Failed | Retrying | None:
        """Run the handler and return the outcome. None when the run was cancelled meanwhile: its end is on the tape."""
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
        """Publish the outcome until it is confirmed, however long the broker is away. The job keeps its slot meanwhile.

        Return False when the attempt has to be executed again. ``retrying`` places the next attempt. Once the delivery
        is lost, another worker gets this attempt and would place the next one a second time.
        """
        while True:
            cc: tuple[str, ...] = ()
            if isinstance(outcome, Retrying):
                if not delivery.can_be_settled:
                    return False
                delay = max(0.0, (outcome.data.next_at - _now()).total_seconds())
                cc = (delay_key(delay, outcome.data.order.queue, self._topology.delay_levels),)
            try:
                await self._publisher.publish(outcome, cc)
                return True
            except WorkRefused as refused:
                log.warning("the next attempt of %s waits for room in its queue: %s", outcome.subject, refused)
                if not refused.placing.cancelled():
                    return await _placed(refused.placing, delivery)
                await asyncio.sleep(FULL_PAUSE)
            except (BrokerUnavailable, TapeMissing) as error:
                log.warning("the outcome of %s waits: %s", outcome.subject, error)
                await asyncio.sleep(PAUSE)

    def _release_slot(self, job_type: str, execution: Execution | None) -> None:
        """Release the slot once the handler has ended: a thread that is past its time-out keeps its slot."""
        if execution is None or execution.working is None or execution.working.done():
            self._backlog.release_slot(job_type)
            self._begin_waiting()
            return
        self._stuck_handlers[execution] = time.monotonic()

        def on_end(_: object) -> None:
            del self._stuck_handlers[execution]
            if execution in self._stuck_logged:
                self._stuck_logged.remove(execution)
                log.warning("the handler of job %s has ended: its slot is free again", execution.event.subject)
            self._backlog.release_slot(job_type)
            self._begin_waiting()

        execution.working.add_done_callback(on_end)

    async def _put_aside(self, delivery: Delivery, reason: str) -> None:
        log.error("a message on a work queue is no job and goes to %s: %s", self._topology.dead.name, reason)
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(30):
                await publish_dead_letter(self._publisher.link, self._topology, delivery.body, reason)
            await delivery.ack()
            return
        await delivery.requeue()


async def _placed(placing: "asyncio.Future[None]", delivery: Delivery) -> bool:
    """Return whether the next attempt was placed while the delivery was still ours; stop placing it otherwise."""
    try:
        while not placing.done() and delivery.can_be_settled:
            await asyncio.wait({placing}, timeout=PAUSE)
        return placing.done() and not placing.cancelled()
    finally:
        placing.cancel()


def _now() -> datetime:
    return datetime.now(UTC)
