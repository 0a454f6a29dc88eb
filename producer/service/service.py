"""Submits jobs and reads what became of them; no HTTP here.

Used by the REST routes and by ``await add.submit(...)`` of an application that runs under ``jobtape.lifespan``.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from jobtape.producer.service.barrier import Barriers
from jobtape.producer.service.errors import ViewBehind
from jobtape.producer.service.idempotency import Idempotency, KeyedOrder, checked_key, has_submission
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.limits import Limits
from jobtape.producer.service.order_check import order_for
from jobtape.producer.service.reads import Reads
from jobtape.producer.service.submission import Submission
from jobtape.producer.service.submitter import Submitter, asked
from jobtape.producer.service.time_travel import TimeTravel
from jobtape.schemas.events import JobEvent
from jobtape.schemas.job import Job, Order
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.topology import Topology
from jobtape.view.store import ClosedJob, DeadMessage, HistoryRow, JobQuery, Store

APPLICATION: Final = "application"
"""The scope of the idempotency keys that code in this process gives, apart from those of the API's clients."""
READ_THREADS: Final = 6
READ_LIMIT: Final = 6.0
"""Seconds; a little more than the store's own patience, which then says what is wrong."""


class JobService:
    """``async with Producer(...)`` or ``start`` and ``close``. Nothing connects before that, and the view is opened by
    the first read: who only submits needs no database.

    ``url``: the broker's. ``job_types``: those that may be submitted; their queues are declared. Raises JobTypeInvalid
    when one of them may run longer than the broker waits.
    """

    def __init__(
        self, url: str, topology: Topology, store: Store, job_types: Mapping[str, JobTypeSpec], limits: Limits
    ) -> None:
        self.submitter = Submitter(url, topology, job_types, limits)
        self.job_types = self.submitter.job_types
        self.limits = limits
        self.topology = self.submitter.topology
        self.watch = self.submitter.watch
        self._store = store
        self._reads = Reads("jobtape-view", threads=READ_THREADS, limit=READ_LIMIT)
        process = uuid4().hex
        self._barriers = Barriers(
            partial(self.publish_barrier, process),
            partial(self._reads.call, store.passed_barrier, process),
            timeout=limits.read_timeout,
        )
        self.idempotency = Idempotency(
            store, self.place, self._barriers, self._reads, limits, source=self.topology.source
        )
        self.past = TimeTravel(store, self._reads, self._barriers.wait)
        """The jobs as they were."""

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def start(self) -> None:
        """Begin to connect, in the background: a broker that is away is waited for, and health says so."""
        await self.submitter.start()

    async def close(self) -> None:
        """Stop; publishes in flight end as unknown."""
        await self._barriers.close()
        await self.submitter.close()
        await self.idempotency.close()
        await self._reads.close()

    async def submit(
        self,
        type: str,  # noqa: A002  # the name it has everywhere else
        payload: dict[str, Any],
        *,
        queue: str | None = None,
        timeout: float | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        max_attempts: int | None = None,
        labels: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        idempotency_key: str | None = None,
        causation_id: str | None = None,
    ) -> Job:
        """Accept a job: it is on the tape and on its queue when this returns.

        ``timeout`` is the job's own, in seconds; it is due after ``delay`` seconds, or at ``run_at``. Raises
        UnknownJobType, PayloadInvalid, PayloadTooLarge and SubmissionInvalid before anything is published, TapeMissing
        when there is no tape, and BrokerUnavailable when no confirm came in time: then it is not known whether the job
        was accepted; QueueFull, which is one of these, when its queue is full. With an ``idempotency_key`` the same
        submission may be made again: it is one job, and this returns it as it is now. That needs the database, and may
        raise what ``Idempotency.submit`` does. ``causation_id``: the event that a submission without a key answers.
        """
        submission = asked(
            type,
            payload,
            {
                "queue": queue,
                "timeout": timeout,
                "delay": delay,
                "run_at": run_at,
                "max_attempts": max_attempts,
                "labels": labels,
                "correlation_id": correlation_id,
                "reply_to": reply_to,
            },
        )
        if idempotency_key is None:
            return await self.submitter.place(self.order(submission), causation_id=causation_id)
        return await self.place_once(APPLICATION, self.keyed(checked_key(idempotency_key), submission))

    def order(self, submission: Submission) -> Order:
        """The order a submission becomes, or what is wrong with it (see ``submit``). Blocks while a large payload is
        checked: call it from a thread then.
        """
        return self.submitter.order(submission)

    def keyed(self, key: str, submission: Submission) -> KeyedOrder:
        """The same for a submission under an idempotency key."""
        now = utc_now()
        return KeyedOrder.of(key, submission, order_for(submission, self.job_types, self.limits, now), now)

    async def place_once(self, scope: str, keyed: KeyedOrder) -> Job:
        """Publish a submission as a new job unless it was before; the job as it is now."""
        self.watch.require_tape()
        return await self.idempotency.submit(scope, keyed)

    async def place(self, order: Order, job_id: str | None = None, time: datetime | None = None) -> Job:
        """Publish an order as a new job: one event, whose second key puts the work on its queue.

        With ``job_id`` and ``time`` (of the event) the same event can be published again.
        """
        return await self.submitter.place(order, job_id, time)

    async def publish(self, event: JobEvent, key: str | None = None) -> None:
        """Write ``event`` to the tape, and to where ``key`` leads. Raises TapeMissing or BrokerUnavailable."""
        await self.submitter.publish(event, key)

    async def find(self, job_id: str) -> Job | None:
        """The job with this (canonical) id, or None when there is none: never None for one that was accepted.

        Waits for the view to catch up when the id may be that of a job just accepted. Raises ViewBehind when it does
        not in time, JobGone for one that was and is not kept any more, ViewUnavailable without a database.
        """
        settled = self._barriers.settled(job_id)
        job = await self._reads.call(self._store.job, job_id)
        # Without its order the job is known only from an event that overtook its submission.
        if has_submission(job):
            return job
        if not settled:
            await self._barriers.wait()
            job = await self._reads.call(self._store.job, job_id)
        if has_submission(job):
            return job
        await self.idempotency.check_kept(job_id)
        if not await self.idempotency.knows(job_id):
            return job
        # Its submission may have been published much later than its id was made.
        job = (await self.idempotency.on_the_tape([job_id])).get(job_id)
        if job is None:
            raise ViewBehind(
                f"the job {job_id} was submitted under an Idempotency-Key, and the submission has not come to an end: "
                "repeat it under the same key"
            )
        return job

    async def look(self, job_id: str) -> Job | None:
        """The job as the view has it now, None unless it has its order too. Raises ViewUnavailable."""
        job = await self._reads.call(self._store.job, job_id)
        return job if has_submission(job) else None

    async def find_now(self, job_id: str) -> Job | None:
        """The same when the view has read everything that is on the tape by now. Raises ViewBehind."""
        await self._barriers.wait()
        return await self._reads.call(self._store.job, job_id)

    async def closed_jobs_now(self, query: JobQuery) -> list[ClosedJob]:
        """What a redrive needs of the jobs of ``query``, as everything that is on the tape by now has left them."""
        await self._barriers.wait()
        return await self._reads.call(self._store.closed_jobs, query)

    async def dead_messages(self, before: int | None, limit: int) -> list[DeadMessage]:
        """Messages that are no job, newest first. Raises ViewUnavailable."""
        return await self._reads.call(self._store.dead_messages, before, limit)

    async def dead_message(self, number: int) -> DeadMessage | None:
        """The message of that number. Raises ViewUnavailable."""
        return await self._reads.call(self._store.dead_message, number)

    async def history(self, job_id: str, after: int = 0, limit: int = 100) -> list[HistoryRow]:
        """The job's events behind the cursor ``after``, in the tape's order. Raises ViewUnavailable."""
        return await self._reads.call(self._store.history, job_id, after, limit)

    async def list_jobs(self, query: JobQuery) -> list[Job]:
        """A page of jobs, newest id first. Raises ViewUnavailable."""
        return await self._reads.call(self._store.list_jobs, query)

    async def publish_barrier(self, process: str, seq: int, timeout: float) -> None:
        self.watch.require_tape()
        await self.submitter.publisher.publish_barrier(process, seq, timeout=timeout)
