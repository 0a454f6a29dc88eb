"""Accepts jobs: checks what is asked for and publishes it. It needs the broker alone, and no database.

``service.Producer`` has one; a worker has one by itself, for what its handlers submit.
"""

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any

from jobtape.broker.publisher import Publisher
from jobtape.producer.service.broker_watch import BrokerWatch
from jobtape.producer.service.errors import SubmissionInvalid
from jobtape.producer.service.ids import new_job_id, utc_now
from jobtape.producer.service.limits import Limits
from jobtape.producer.service.order_check import order_for
from jobtape.producer.service.submission import Submission, read_submission
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.errors import TapeMissing
from jobtape.schemas.events import JobEvent, submitted
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, Order
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.timeouts import check_timeouts
from jobtape.schemas.topology import Topology, run_key


class Submitter:
    """``async with Submitter(...)`` or ``start`` and ``close``. Nothing connects before that.

    ``url``: the broker's. ``job_types``: those that may be submitted; their queues are declared. ``name``: what the
    broker calls the connection, behind the namespace. Raises JobTypeInvalid when a job type may run longer than the
    broker waits.
    """

    def __init__(
        self, url: str, topology: Topology, job_types: Mapping[str, JobTypeSpec], limits: Limits, *, name: str = "api"
    ) -> None:
        check_timeouts(job_types.values(), limits.longest_timeout)
        self.job_types = dict(job_types)
        self.limits = limits
        self.topology = topology.with_queues(job_type.queue for job_type in job_types.values())
        self.watch = BrokerWatch(url, self.topology, name)
        self.publisher = Publisher(self.watch.link, self.topology, timeout=limits.publish_timeout)

    async def __aenter__(self) -> "Submitter":
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def start(self) -> None:
        """Begin to connect, in the background."""
        self.watch.start()

    async def close(self) -> None:
        """Stop; publishes in flight end as unknown."""
        await self.publisher.close()
        await self.watch.close()

    async def submit(self, type: str, payload: dict[str, Any], **options: Any) -> Job:  # noqa: A002
        """As ``Producer.submit``, but without an ``idempotency_key``, which needs the database."""
        key, causation_id = options.pop("idempotency_key", None), options.pop("causation_id", None)
        if key is not None:
            message = (
                "an idempotency key needs the database, which this process does not open: submit it with "
                "jobtape.Client or jobtape.SyncClient, under Options(idempotency_key=...)"
            )
            raise SubmissionInvalid(message, [{"loc": ("idempotency_key",), "msg": message}])
        return await self.place(self.order(asked(type, payload, options)), causation_id=causation_id)

    def order(self, submission: Submission) -> Order:
        """The order a submission becomes, or what is wrong with it (see ``Producer.submit``). Blocks while a large
        payload is checked: call it from a thread then.
        """
        return order_for(submission, self.job_types, self.limits, utc_now())

    async def place(
        self, order: Order, job_id: str | None = None, time: datetime | None = None, *, causation_id: str | None = None
    ) -> Job:
        """Publish an order as a new job: one event, whose second key puts the work on its queue.

        With ``job_id`` and ``time`` (of the event) the same event can be published again. ``causation_id``: the event
        that it answers.
        """
        self.watch.require_tape()
        now = utc_now()
        event = submitted(
            job_id or new_job_id(), order, source=self.topology.source, time=time or now, causation_id=causation_id
        )
        wait = 0.0 if order.run_at is None else (order.run_at - now).total_seconds()
        key = delay_key(wait, order.queue, self.topology.delay_levels) if wait > 0 else run_key(order.queue)
        await self.publish(event, key)
        return evolve(None, event)

    async def publish(self, event: JobEvent, key: str | None = None) -> None:
        """Publish ``event`` to the tape, and to the queue of ``key``.

        Raises TapeMissing, BrokerUnavailable, and QueueFull, which is a BrokerUnavailable.
        """
        self.watch.require_tape()
        cc = () if key is None else (key,)
        self.publisher.check_room(cc)
        try:
            await self.publisher.publish(event, cc=cc)
        except TapeMissing:
            self.watch.tape_is_missing()
            raise


def asked(type: str, payload: dict[str, Any], options: Mapping[str, Any]) -> Submission:  # noqa: A002
    """The submission of these arguments, read as the body of a request is. Raises SubmissionInvalid."""
    labels = dict(options.get("labels") or {})
    return read_submission({"type": type, "payload": payload, **options, "labels": labels}, Submission)
