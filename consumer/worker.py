"""Runs jobs: takes them from the work queues, executes them, publishes the outcome, then acknowledges.

Theory of operation. A job may be delivered again at any time before its ack is with the broker, so the order is always:
outcome published and confirmed, **then** ack; ``_settle`` is the one place that does it. What comes again although it
was settled is acknowledged unrun; what comes again while it is still running here waits for that execution. Consuming
and publishing have a connection each, because an alarm on the broker blocks a publishing connection entirely. No user
code runs on this loop (see ``handlers``).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from jobtape.broker import declare
from jobtape.broker.bury import bury
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.consumer.execution import Execution, WorkEvent, attempt_of
from jobtape.consumer.handlers import Handlers
from jobtape.consumer.intake import Delivery, Intake
from jobtape.consumer.settled import Key, Settled
from jobtape.consumer.waiting import first_of, wait_for_stop
from jobtape.schemas.errors import BrokerUnavailable, JobTypeInvalid, LogMissing, UnreadableEvent
from jobtape.schemas.events import JobEvent, Redriven, Retrying, Submitted, decode
from jobtape.schemas.jobtype import JobType, longest_timeout
from jobtape.schemas.topology import Topology

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds until something that failed is tried again."""
SPARE_PREFETCH = 4
"""Deliveries beyond the concurrency, so that a slot that gets free has work at once. No more, and never more than there
are slots: what waits here counts against the acknowledgement time-out, which allows for one job's length, and is given
back when this worker dies."""


class Worker:
    """Works on ``queues`` (default: those of ``job_types``) of ``topology``; ``grace`` and ``ack_timeout`` in seconds.

    Raises JobTypeInvalid when a job type's time-out does not fit the broker's acknowledgement time-out.
    """

    def __init__(
        self,
        url: str,
        topology: Topology,
        job_types: Mapping[str, JobType],
        *,
        concurrency: int,
        grace: float,
        max_result: int,
        ack_timeout: float,
        name: str,
        queues: Sequence[str] | None = None,
    ) -> None:
        limit = longest_timeout(ack_timeout, grace)
        for job_type in job_types.values():
            if job_type.timeout > limit:
                raise JobTypeInvalid(
                    f"the time-out of {job_type.name}, {job_type.timeout:g} s, is more than {limit:g} s: twice the "
                    f"time-out and the grace time ({grace:g} s) must fit the broker's acknowledgement time-out "
                    f"(JOBTAPE_ACK_TIMEOUT, {ack_timeout:g} s; the broker's consumer_timeout): shorten it or raise both"
                )
        self.name = name
        self._topology = topology
        self._job_types = job_types
        self._grace = grace
        self._concurrency = concurrency
        self._queues = tuple(topology.queues if queues is None else queues)
        self._intake_link = Link(url, name=f"{topology.namespace} worker {name}", setup=self._declare)
        self._publisher = Publisher(Link(url, name=f"{topology.namespace} worker {name} (publishing)"), topology)
        self._handlers = Handlers(concurrency=concurrency, max_result=max_result)
        self._free = concurrency
        self._waiting: deque[Delivery] = deque()
        self._settled = Settled()
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._trouble: str | None = "starting"

    @property
    def trouble(self) -> str | None:
        """Why no jobs are taken; None while they are."""
        return self._intake_link.trouble or self._publisher.link.trouble or self._trouble

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then drain: running jobs get the grace time, the rest goes back."""
        self._intake_link.start()
        self._publisher.link.start()
        try:
            while not stop.is_set():
                connection = await first_of(self._intake_link.connection(), stop)
                if connection is None:
                    break
                try:
                    await self._take(connection, stop)
                except BROKER_ERRORS as error:
                    self._trouble = f"taking jobs was interrupted: {reason_of(error)}"
                    log.warning("%s", self._trouble)
                    await wait_for_stop(stop, PAUSE)
            await self._let_finish()  # what still runs when the broker went away before the end
        finally:
            self._handlers.close()
            await self._publisher.link.close()
            await self._intake_link.close()

    async def _declare(self, connection: Connection) -> None:
        await declare.declare(connection, self._topology)

    async def _take(self, connection: Connection, stop: asyncio.Event) -> None:
        """Take deliveries until the channel ends (then the caller begins anew) or ``stop`` is set (then drain)."""
        await self._declare(connection)  # a queue may have been deleted meanwhile
        names = [self._topology.work_queue(queue).name for queue in self._queues]
        prefetch = self._concurrency + min(self._concurrency, SPARE_PREFETCH)
        async with Intake(connection, names, prefetch=prefetch, deliver=self._on_delivery) as intake:
            self._trouble = None
            log.info("taking jobs from %s", ", ".join(self._queues))
            await first_of(intake.ended.wait(), stop)
            if stop.is_set():
                await self._drain(intake)
            self._waiting.clear()  # with the channel they go back to their queues
            if stop.is_set():
                return
            self._trouble = "the channel to the broker was closed"

    async def _drain(self, intake: Intake) -> None:
        self._trouble = "draining"
        self._draining = True
        await intake.stop_taking()
        while self._waiting:  # some may still arrive meanwhile
            await self._waiting.popleft().give_back()
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

    def _on_delivery(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)  # at most the prefetch
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        while self._waiting and self._free and not self._draining:
            self._begin(self._waiting.popleft())

    def _begin(self, delivery: Delivery) -> None:
        try:
            event = decode(delivery.body)
            if not isinstance(event, Submitted | Retrying | Redriven):
                raise UnreadableEvent(f"a {event.name} event on a work queue")
        except UnreadableEvent as error:
            self._spawn(self._put_aside(delivery, str(error)))
            return
        key = (event.subject, event.data.run, attempt_of(event))
        if key in self._settled:
            self._spawn(delivery.ack())
        elif (same := self._running.get(key)) is not None:
            # Its channel was lost while it ran; the execution goes on and settles for this delivery too.
            self._spawn(self._settle_with(same, key, delivery))
        else:
            self._free -= 1
            task = self._spawn(self._settle(event, key, delivery))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _settle_with(self, same: "asyncio.Task[None]", key: Key, delivery: Delivery) -> None:
        await asyncio.wait({same})
        await (delivery.ack() if key in self._settled else delivery.give_back())

    async def _settle(self, event: WorkEvent, key: Key, delivery: Delivery) -> None:
        execution = Execution(
            event, source=self._topology.source, worker=self.name, note=self._publisher.publish, now=_now
        )
        try:
            outcome = await execution.run(self._handlers, self._job_types.get(event.data.order.type))
            await self._publish_outcome(outcome)
        finally:
            self._release_slot(execution)
        self._settled.add(key)
        await delivery.ack()

    async def _publish_outcome(self, outcome: JobEvent) -> None:
        """Until it is confirmed; meanwhile its slot stays taken, so that nothing piles up here."""
        while True:
            try:
                await self._publisher.publish(outcome)
                return
            except (BrokerUnavailable, LogMissing) as error:
                log.warning("the outcome of %s waits: %s", outcome.subject, error)
                await asyncio.sleep(PAUSE)

    def _release_slot(self, execution: Execution) -> None:
        """Once no handler of it runs: a thread that is past its time-out still takes its place."""
        if execution.working is None or execution.working.done():
            self._slot_is_free()
        else:
            execution.working.add_done_callback(lambda _: self._slot_is_free())

    def _slot_is_free(self) -> None:
        self._free += 1
        self._begin_waiting()

    async def _put_aside(self, delivery: Delivery, reason: str) -> None:
        log.error("a message on a work queue is no job and goes to %s: %s", self._topology.dead.name, reason)
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(30):
                await bury(self._publisher.link, self._topology, delivery.body, reason)
            await delivery.ack()
            return
        await delivery.give_back()


def _now() -> datetime:
    return datetime.now(UTC)
