"""Submits jobs and reads what became of them; no HTTP here.

Used by the REST routes and by ``await add.submit(...)`` of an application that runs under ``jobtape.lifespan``.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final
from uuid import uuid4

from jobtape.broker.publisher import Publisher
from jobtape.producer import batch
from jobtape.producer.barrier import Barriers
from jobtape.producer.health import Health
from jobtape.producer.ids import new_job_id, utc_now
from jobtape.producer.lag import Lag
from jobtape.producer.limits import Limits
from jobtape.producer.orders import check_job_types, order_for
from jobtape.producer.reads import Reads
from jobtape.producer.submission import Submission, read_submission
from jobtape.producer.watch import Watch
from jobtape.schemas.errors import LogMissing
from jobtape.schemas.events import submitted
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, Order
from jobtape.schemas.jobtype import JobType
from jobtape.schemas.ladder import delay_key
from jobtape.schemas.topology import Topology, run_key
from jobtape.view.store import HistoryRow, JobQuery, Store

READ_THREADS: Final = 6
READ_LIMIT: Final = 6.0
"""Seconds; a little more than the store's own patience, which then says what is wrong."""


class Producer:
    """``async with Producer(...)`` or ``start`` and ``close``. Nothing connects before that, and the view is opened by
    the first read: who only submits needs no database.

    ``url``: the broker's. ``job_types``: those that may be submitted; their queues are declared. Raises JobTypeInvalid
    when one of them may run longer than the broker waits.
    """

    def __init__(
        self, url: str, topology: Topology, store: Store, job_types: Mapping[str, JobType], limits: Limits
    ) -> None:
        check_job_types(job_types, limits)
        self.job_types = dict(job_types)
        self.limits = limits
        self.topology = topology.with_queues(job_type.queue for job_type in job_types.values())
        self.watch = Watch(url, self.topology)
        self._store = store
        self._publisher = Publisher(self.watch.link, self.topology, timeout=limits.publish_timeout)
        self._reads = Reads("jobtape-view", threads=READ_THREADS, limit=READ_LIMIT)
        process = uuid4().hex
        self._barriers = Barriers(
            partial(self._publish_barrier, process),
            partial(self._reads.call, store.passed_barrier, process),
            timeout=limits.read_timeout,
        )
        self.health = Health(self.watch, store)
        self.lag = Lag(self._publish_barrier, self.health.passed_barrier)

    async def __aenter__(self) -> "Producer":
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
        self.watch.start()

    async def close(self) -> None:
        """Stop; publishes in flight end as unknown."""
        await self.lag.close()
        await self._barriers.close()
        await self.watch.close()
        await self._reads.close()
        await self.health.close()

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
    ) -> Job:
        """Accept a job: it is on the tape and on its queue when this returns.

        ``timeout`` is the job's own, in seconds; it is due after ``delay`` seconds, or at ``run_at``. Raises
        UnknownJobType, PayloadInvalid, PayloadTooLarge and SubmissionInvalid before anything is published, LogMissing
        when there is no tape, and BrokerUnavailable when no confirm came in time: then it is not known whether the job
        was accepted.
        """
        submission = read_submission(
            {
                "type": type,
                "payload": payload,
                "queue": queue,
                "timeout": timeout,
                "delay": delay,
                "run_at": run_at,
                "max_attempts": max_attempts,
                "labels": dict(labels or {}),
                "correlation_id": correlation_id,
            }
        )
        return await self.place(self.order(submission))

    def order(self, submission: Submission) -> Order:
        """The order a submission becomes, or what is wrong with it (see ``submit``). Blocks while a large payload is
        checked: call it from a thread then.
        """
        return order_for(submission, self.job_types, self.limits, utc_now())

    async def place(self, order: Order, job_id: str | None = None) -> Job:
        """Publish an order as a new job: one event, whose second key puts the work on its queue."""
        self.watch.require_tape()
        now = utc_now()
        event = submitted(job_id or new_job_id(), order, source=self.topology.source, time=now)
        wait = 0.0 if order.run_at is None else (order.run_at - now).total_seconds()
        key = delay_key(wait, order.queue, self.topology.delay_levels) if wait > 0 else run_key(order.queue)
        try:
            await self._publisher.publish(event, cc=[key])
        except LogMissing:
            self.watch.tape_is_missing()
            raise
        return evolve(None, event)

    async def submit_many(self, submissions: Sequence[Submission]) -> list[batch.Outcome]:
        """What became of each, in the order given, with many publishes in flight at once.

        Raises LogMissing or BrokerUnavailable when nothing was published at all.
        """
        return await batch.submit_many(self, submissions)

    async def find(self, job_id: str) -> Job | None:
        """The job with this (canonical) id, or None when there is none: never None for one that was accepted.

        Waits for the view to catch up when the id may be that of a job just accepted. Raises ViewBehind when it does
        not in time, ViewUnavailable without a database.
        """
        settled = self._barriers.settled(job_id)
        job = await self._reads.call(self._store.job, job_id)
        # Without its order the job is known only from an event that overtook its submission.
        if settled or (job is not None and job.submitted_at is not None):
            return job
        await self._barriers.wait()
        return await self._reads.call(self._store.job, job_id)

    async def history(self, job_id: str, after: int = 0, limit: int = 100) -> list[HistoryRow]:
        """The job's events behind the cursor ``after``, in the tape's order. Raises ViewUnavailable."""
        return await self._reads.call(self._store.history, job_id, after, limit)

    async def list_jobs(self, query: JobQuery) -> list[Job]:
        """A page of jobs, newest id first. Raises ViewUnavailable."""
        return await self._reads.call(self._store.list_jobs, query)

    async def _publish_barrier(self, process: str, seq: int, timeout: float) -> None:
        self.watch.require_tape()
        await self._publisher.publish_barrier(process, seq, timeout=timeout)
