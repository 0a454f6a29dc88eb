"""Submits, reads, cancels, redrives, releases and signals jobs; no HTTP here.

Used by the REST routes and by ``await add.submit(...)`` of an application that runs under ``jobtape.lifespan``.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from uuid_utils import uuid4

from jobtape.producer.service.barrier import Barrier, SharedBarrier
from jobtape.producer.service.errors import JobFinal, JobNotFinal, SignalTaken, SubmissionNotKept, ViewBehind
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.submission.idempotency import Idempotency, KeyedOrder, checked_key, has_submission, reused
from jobtape.producer.service.submission.limits import Limits
from jobtape.producer.service.submission.order_check import check_payload, check_signals, order_for
from jobtape.producer.service.submission.submitter import Submitter
from jobtape.producer.service.time_travel import TimeTravel
from jobtape.producer.service.view_calls import JobReader, ViewCalls
from jobtape.schemas.events.interventions import cancelled, redriven, released, signalled
from jobtape.schemas.fold import MAX_SIGNALS, evolve
from jobtape.schemas.job import Job, JobRun, JobState
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.submission import Spawned, Submission
from jobtape.schemas.topology import CANCEL_KEY, Topology
from jobtape.telemetry import tracing
from jobtape.view.store import FoundJobs, JobQuery, Store

APPLICATION: Final = "application"
"""The scope of the idempotency keys that code in this process uses, apart from those of the API's clients."""
READ_THREADS: Final = 6
READ_TIMEOUT: Final = 6.0
"""Seconds; a little more than the store's own limit, whose error says what is wrong."""
SEARCH_TIMEOUT: Final = 20.0
"""Seconds, with the wait for other searches, each of which takes a second or two."""


class JobService(Submitter):
    """A submitter that also reads the view. The first read opens the view, so submitting alone needs no database.

    Every call that reads raises ViewUnavailable when the database does not answer.
    """

    def __init__(
        self, url: str, topology: Topology, store: Store, job_types: Mapping[str, JobTypeSpec], limits: Limits
    ) -> None:
        super().__init__(url, topology, job_types, limits)
        self.store = store
        """The view. Its calls block: make them with ``read``."""
        self._reads = ViewCalls("jobtape-view", threads=READ_THREADS, limit=READ_TIMEOUT)
        self.read = self._reads.call
        self._read = JobReader(store, self._reads).job
        self._searches = ViewCalls("jobtape-search", threads=1, limit=SEARCH_TIMEOUT)
        self.search = self._searches.call
        """Same as ``read``, one at a time, for reads that take long."""
        self._barrier = SharedBarrier(
            Barrier("api", self.publish_barrier, partial(self.read, store.passed_barrier)),
            timeout=limits.read_timeout,
        )
        self.idempotency = Idempotency(
            store, self.submit_order, self._barrier, self._reads, limits, source=self.topology.source
        )
        self.past = TimeTravel(store, self._reads, self._barrier.wait)
        """The jobs as they were at an earlier point."""

    async def close(self) -> None:
        """Stop. Whether running publishes were accepted is unknown."""
        await self._barrier.close()
        await super().close()
        await self.idempotency.close()
        await self._reads.close()
        await self._searches.close()

    async def submit(
        self,
        submission: Submission,
        idempotency_key: str | None = None,
        causation_id: str | None = None,
        spawned: Spawned | None = None,
    ) -> Job:
        """Submit a job as ``Submitter.submit`` does. The same submission under the same ``idempotency_key`` is one job.

        With a key this returns the job as it is now, ignores ``causation_id``, needs the database, and also raises what
        ``Idempotency.submit`` raises.
        """
        if idempotency_key is None:
            return await super().submit(submission, causation_id=causation_id, spawned=spawned)
        return await self.submit_once(APPLICATION, self.keyed(checked_key(idempotency_key), submission))

    def keyed(self, key: str, submission: Submission) -> KeyedOrder:
        """Return the order of a submission under an idempotency key. See ``order``."""
        now = utc_now()
        return KeyedOrder.of(key, submission, order_for(submission, self.job_types, self.limits, now), now)

    async def submit_once(self, scope: str, keyed: KeyedOrder) -> Job:
        """Publish an order as a new job unless its key has one, and return the job as it is now."""
        self.watch.require_tape()
        return await self.idempotency.submit(scope, keyed)

    async def job(self, job_id: str) -> Job | None:
        """Return the job with this canonical id, or None when there is none; never None for an accepted job.

        Waits for the view to catch up when the job may have been accepted a moment ago. Raises ViewBehind when the view
        does not catch up in time, and JobGone for a job that is no longer kept.
        """
        covered = self._barrier.covers(job_id)
        job = await self._read(job_id)
        if not has_submission(job) and not covered:
            job = await self.job_after_barrier(job_id)
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

    async def job_in_view(self, job_id: str) -> Job | None:
        """Return the job as the view has it now, None without its submission: events may overtake that."""
        job = await self._read(job_id)
        return job if has_submission(job) else None

    async def job_after_barrier(self, job_id: str) -> Job | None:
        """Return the job when the view has read everything that is on the tape by now. Raises ViewBehind."""
        await self._barrier.wait()
        return await self._read(job_id)

    async def cancel(self, job_id: str) -> Job | None:
        """Request the end of the job's present run. Returns the job as it was at the request, None when there is none.

        The tape decides: an outcome that is on it earlier stays. A second request, and one for a job that is already
        cancelled, changes nothing. Raises JobFinal when the job has ended, BrokerUnavailable when it is not known
        whether the broker has the request (then repeat it), TapeMissing, and what ``job`` raises.
        """
        job = await self.job(job_id)
        if job is not None and job.final:
            # It may have been redriven a moment ago: then the request is about a run that the view does not have yet.
            job = await self.job_after_barrier(job_id)
        if job is None or job.state is JobState.CANCELLED:
            return job
        if job.final:
            raise JobFinal(f"the job {job.id} has {job.state} already; there is nothing to cancel", job.state)
        await self.publish(cancelled(job, **self._stamp()), CANCEL_KEY)
        return job

    async def redrive(self, job_id: str) -> Job | None:
        """Run a job again that has ended. Returns the job in its next run, None when there is no such job.

        A second request during that run changes nothing. Raises JobNotFinal, SubmissionNotKept, BrokerUnavailable when
        it is not known whether the broker has the event (then repeat it), TapeMissing, and what ``job`` raises.
        """
        if await self.job(job_id) is None:
            return None
        job = await self.job_after_barrier(job_id)
        if job is None:
            return None
        if not (job.final or job.imported):
            if job.run > 1:
                return job
            raise JobNotFinal(f"the job {job.id} is {job.state}: only one that has ended can be redriven", job.state)
        if job.submitted_at is None:
            raise SubmissionNotKept(f"the submission of job {job.id} is not on the tape any more: submit it again")
        if job.gates is not None and job.gates.rule:
            raise JobFinal(
                f"the job {job.id} is a pause, limit or schedule, which cannot be redriven: create it again", job.state
            )
        event = redriven(job, **self._stamp())
        await self.publish(event)
        return evolve(job, event)

    async def release(self, job_id: str) -> Job | None:
        """Let a failed job give up its ordering key. Returns the job, None when there is none.

        For a job that keeps no key nothing changes. Raises JobNotFinal for an open job, and what ``redrive`` raises.
        """
        if await self.job(job_id) is None:
            return None
        job = await self.job_after_barrier(job_id)
        if job is None or (job.final and not job.has_slots):
            return job
        if not job.final:
            raise JobNotFinal(f"the job {job.id} is {job.state}: only one that has failed can be released", job.state)
        event = released(job, source=self.topology.source, time=utc_now())
        await self.publish(event)
        return evolve(job, event)

    async def signal(self, job_id: str, name: str, payload: dict[str, Any], key: str | None = None) -> Job | None:
        """Send a signal to the job's present run. Returns the job with the signal, None when there is none.

        It may come before the job waits for it. The first with its ``name`` counts, and the tape decides; under the
        same ``key`` it can be sent again. Raises SignalTaken, JobFinal, IdempotencyKeyReused, PayloadTooLarge,
        PayloadInvalid, BrokerUnavailable and ViewBehind when it is not known whether the job has it (then repeat it
        under the key), TapeMissing, and what ``job`` raises.
        """
        check_payload(payload, self.limits)
        job = None if await self.job(job_id) is None else await self.job_after_barrier(job_id)
        if job is None:
            return None
        digest = hashlib.sha256((uuid4().hex if key is None else key).encode()).hexdigest()[:32]
        event = signalled(job, name, payload, digest, source=self.topology.source, time=utc_now())
        if name not in (job.signals or {}):
            if job.final or (job.gates is not None and job.gates.rule):
                raise JobFinal(f"the job {job.id} is {job.state}: it takes no signals", job.state)
            if len(job.signals or {}) >= MAX_SIGNALS:
                raise SignalTaken(
                    f"this run of the job {job.id} has {MAX_SIGNALS} signals already and takes no more: redrive the job"
                )
            check_signals(job, payload, self.limits)
            await self.publish(event)
            job = await self.job_after_barrier(job_id)
            if job is None:
                return None
        found = (job.signals or {}).get(name)
        if found is None:
            raise JobFinal(f"the run of the job {job.id} ended before the signal came", job.state)
        if found["event"] != event.id:
            why = "its time was over" if found["timed_out"] else "another signal with this name came first"
            raise SignalTaken(f"the job {job.id} does not take the signal {name!r}: {why}")
        if found["payload"] != payload and key is not None:
            raise reused(key)
        return job

    def _stamp(self) -> dict[str, Any]:
        return {"source": self.topology.source, "time": utc_now(), "traceparent": tracing.traceparent()}

    async def rules(self, *, committed: bool = False) -> list[Job]:
        """Return the rules in force when the view has read the tape up to now, in their order. Raises ViewBehind.

        ``committed``: return those that the view has already, and put no barrier on the tape.
        """
        if not committed:
            await self._barrier.wait()
        rules = await self.read(self.store.open_jobs.rules)
        jobs = await self.read(self.store.jobs, [job_id for job_id, _, _ in rules])
        return [jobs[job_id] for job_id, _, _ in rules if job_id in jobs and not jobs[job_id].final]

    async def existing(self, job_ids: Iterable[str]) -> set[str]:
        """Return which jobs there are when the view has read the tape up to now. Raises ViewBehind."""
        await self._barrier.wait()
        return {*await self.read(self.store.jobs, list(job_ids))}

    async def matching(self, query: JobQuery) -> FoundJobs[JobRun]:
        """Return the jobs of ``query`` when the view has read the tape up to now. Raises ViewBehind."""
        await self._barrier.wait()
        return await self.search(self.store.search.runs, query)

    async def publish_barrier(self, process: str, seq: int, timeout: float) -> None:
        """Write a barrier to the tape. Raises TapeMissing and BrokerUnavailable."""
        self.watch.require_tape()
        await self.publisher.publish_barrier(process, seq, timeout)
