"""Submits jobs: checks a submission, makes the event ``submitted`` and publishes it. Needs the broker, no database.

An API process has a ``JobService``, which is a submitter with a view. A worker has a submitter for its handlers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar

from jobtape.broker.publisher import Publisher
from jobtape.producer.service.broker_watch import BrokerWatch
from jobtape.producer.service.ids import new_job_id, utc_now
from jobtape.producer.service.submission.limits import Limits
from jobtape.producer.service.submission.order_check import order_for
from jobtape.schemas.errors import SubmissionInvalid, TapeMissing
from jobtape.schemas.events import JobEvent, Submitted, submitted
from jobtape.schemas.fold import evolve, places_no_work
from jobtape.schemas.job import Job, Order
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.queueing.gates import Gates
from jobtape.schemas.queueing.lanes import queues_of
from jobtape.schemas.rules.rules import PAUSE
from jobtape.schemas.submission import Spawned, Submission
from jobtape.schemas.timeouts import check_timeouts
from jobtape.schemas.topology import CANCEL_KEY, EVENT_KEY, Topology, work_key
from jobtape.telemetry import tracing
from jobtape.telemetry.work import Work

T = TypeVar("T")

IN_FLIGHT: Final = 500
"""Publishes of one request at the same time."""


async def publish_each(items: Iterable[T], publish: Callable[[T], Awaitable[None]]) -> None:
    """Call ``publish`` for each item, with at most ``IN_FLIGHT`` calls at the same time."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await publish(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())


class Submitter:
    """Use it with ``async with``, or call ``start`` and ``close``. Nothing connects before that.

    ``url``: the broker's. ``job_types``: those that may be submitted; their queues are declared. ``name``: the name of
    the connection on the broker, after the namespace. Raises JobTypeInvalid when a job type may run longer than the
    broker waits.
    """

    def __init__(
        self, url: str, topology: Topology, job_types: Mapping[str, JobTypeSpec], limits: Limits, *, name: str = "api"
    ) -> None:
        check_timeouts(job_types.values(), limits.longest_timeout)
        self.job_types = dict(job_types)
        self.limits = limits
        self.topology = topology.with_queues(queues_of(job_types.values()))
        self.watch = BrokerWatch(url, self.topology, name)
        self.publisher = Publisher(self.watch.link, self.topology, timeout=limits.publish_timeout)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to connect, in the background. While the broker is away, health checks show it."""
        self.watch.start()

    async def close(self) -> None:
        """Stop. Whether running publishes were accepted is unknown."""
        await self.publisher.close()
        await self.watch.close()

    async def submit(
        self,
        submission: Submission,
        idempotency_key: str | None = None,
        causation_id: str | None = None,
        spawned: Spawned | None = None,
    ) -> Job:
        """Submit a job. When this returns, the job is on the tape, and on its queue unless it
        is due later, has gates, or was deferred because its queue is full.

        ``causation_id``: the id of the event that the submission answers. ``spawned``: of a job that a handler spawns:
        which one it is; submitted twice, it is one job. Raises UnknownJobType, PayloadInvalid,
        PayloadTooLarge and SubmissionInvalid before anything is published, TapeMissing when there is no tape,
        BrokerUnavailable when no confirm came in time and it is not known whether the job was accepted, and QueueFull,
        which is a BrokerUnavailable. An ``idempotency_key`` is refused, because it needs the database.
        """
        if idempotency_key is not None:
            message = (
                "an idempotency key needs the database, which this process does not open: submit it with "
                "jobtape.Client or jobtape.SyncClient, under Options(idempotency_key=...)"
            )
            raise SubmissionInvalid(message, [{"loc": ("idempotency_key",), "msg": message}])
        order = self.order(submission)
        if spawned is None:
            return await self.submit_order(order, causation_id=causation_id)
        # With gates its work is placed once, however often it is submitted.
        order = order.model_copy(update={"flow": spawned.flow, "gates": order.gates or Gates()})
        return await self.submit_order(order, spawned.id, causation_id=causation_id)

    def order(self, submission: Submission) -> Order:
        """Return the order that a submission becomes. Raises what ``order_for`` raises.

        Call it in a thread when the payload is large: its check takes milliseconds.
        """
        return order_for(submission, self.job_types, self.limits, utc_now())

    async def submit_order(
        self,
        order: Order,
        job_id: str | None = None,
        time: datetime | None = None,
        *,
        causation_id: str | None = None,
        repeated: bool = False,
    ) -> Job:
        """Publish an order as a new job: one event, whose second routing key puts the work on its queue. A job that is
        due later or has gates has no such key: the projector places its work.

        With ``job_id`` and ``time`` of an event, that event is published again. ``repeated``: it may be on the tape,
        so it is published even if its queue is full. Raises what ``publish`` raises, and QueueFull, which is a
        BrokerUnavailable.
        """
        self.watch.require_tape()
        # In this order: lists compare a time with that of the id, and exclude a job that was submitted at their end.
        time, job_id = time or utc_now(), job_id or new_job_id()
        later = places_no_work(order, time)
        if not later and not repeated:
            self.publisher.check_room(order.queue)
        key = EVENT_KEY if later else work_key(order.queue)
        work = Work(job_id, order.type, correlation_id=order.correlation_id)
        with tracing.sending(f"{self.topology.events.name}:{key}", work) as traceparent:
            event = self._submitted(order, job_id, time, traceparent, causation_id)
            job = evolve(None, event)
            if later:
                await self.publish(event, _key(order))
                return job
            with self._noting_a_missing_tape():
                deferred = await self.publisher.place(event)
        return job if deferred is None else evolve(job, deferred)

    def begin_to_submit(self, order: Order, job_id: str, time: datetime) -> "asyncio.Future[None]":
        """Publish an order as a new job, and return a future that ends when it is on the tape and on its queue.

        When the future raises, call ``submit_order`` with ``repeated``. Raises QueueFull when nothing was published.
        """
        # Without a span of its own: a batch has thousands.
        event = self._submitted(order, job_id, time, tracing.for_submission())
        if places_no_work(order, time):
            key = _key(order)
            return self.publisher.begin(event, () if key is None else (key,))
        self.publisher.check_room(order.queue)
        return self.publisher.begin(event, (work_key(order.queue),))

    def _submitted(
        self, order: Order, job_id: str, time: datetime, traceparent: str | None, causation_id: str | None = None
    ) -> Submitted:
        source = self.topology.source
        return submitted(job_id, order, source=source, time=time, causation_id=causation_id, traceparent=traceparent)

    async def publish(self, event: JobEvent, key: str | None = None) -> None:
        """Publish ``event`` to the tape, and to the stream that ``key`` leads to.

        Raises TapeMissing and BrokerUnavailable.
        """
        self.watch.require_tape()
        with self._noting_a_missing_tape():
            await self.publisher.publish(event, () if key is None else (key,))

    @contextmanager
    def _noting_a_missing_tape(self) -> Iterator[None]:
        try:
            yield
        except TapeMissing:
            self.watch.tape_is_missing()
            raise


def _key(order: Order) -> str | None:
    """Return the second key of a submission that places no work: workers have to read a pause."""
    return CANCEL_KEY if order.type == PAUSE and order.gates is not None and order.gates.rule else None
