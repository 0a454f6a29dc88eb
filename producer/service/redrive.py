"""Redrives jobs: publishes the event that begins a job's next run. The projector then places the work.

The event's id is ``<job>/<run>/redriven``, so a job gets one next run from any number of simultaneous requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobtape.producer.service.errors import JobNotFinal, SubmissionNotKept
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.service import JobService
from jobtape.producer.service.submitter import publish_each
from jobtape.schemas import ids
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.schemas.events import Redriven, RedrivenData
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from jobtape.view.store import ClosedJob, JobQuery


@dataclass(slots=True)
class Redrives:
    """The result of ``redrive_many``. ``ids``: the jobs that matched, newest first. ``more``: whether there are more.

    ``refused``: nothing was published for the job. ``unknown``: no confirm came. Except in a dry run, ``accepted``,
    ``refused`` and ``unknown`` add up to ``matched``.
    """

    matched: int
    ids: Sequence[str]
    more: bool
    accepted: int = 0
    refused: int = 0
    unknown: int = 0


async def redrive(service: JobService, job_id: str) -> Job | None:
    """Run a job again that has ended. Returns the job in its next run, None when there is no such job.

    A second request during that run changes nothing. Raises JobNotFinal, SubmissionNotKept, BrokerUnavailable when it
    is not known whether the broker has the event (then repeat it), TapeMissing, ViewBehind and ViewUnavailable.
    """
    if await service.find(job_id) is None:
        return None
    job = await service.find_after_barrier(job_id)
    if job is None:
        return None
    if not (job.final or job.imported):
        if job.run > 1:
            return job
        raise JobNotFinal(f"the job {job.id} is {job.state}: only one that has ended can be redriven", job.state)
    if job.submitted_at is None:
        raise SubmissionNotKept(f"what was ordered as the job {job.id} is not on the tape any more: submit it again")
    event = _redriven(service, ClosedJob(job.id, job.type, job.run, job.correlation_id, known=True))
    await service.publish(event)
    return evolve(job, event)


async def redrive_many(service: JobService, query: JobQuery, *, dry_run: bool = False) -> Redrives:
    """Run the jobs of ``query`` again, which must select final states only.

    The last job of the query's limit is left out: it shows whether there are more. With ``dry_run`` nothing is
    published. Raises what ``redrive`` raises, and only when nothing was published.
    """
    found = await service.closed_jobs_after_barrier(query)
    jobs = found[: query.limit - 1]
    result = Redrives(matched=len(jobs), ids=[job.id for job in jobs], more=len(found) > len(jobs))
    if dry_run or not jobs:
        return result
    service.watch.require_tape()
    if (fault := service.watch.broker_fault) is not None:
        raise BrokerUnavailable(f"nothing was redriven: {fault}")
    await publish_each(jobs, _Sender(service, result).send)
    return result


class _Sender:
    """Publishes until the broker stops confirming. The jobs after that are refused."""

    def __init__(self, service: JobService, result: Redrives) -> None:
        self._service = service
        self._result = result
        self._stopped = False

    async def send(self, job: ClosedJob) -> None:
        if self._stopped or not job.known:
            self._result.refused += 1
            return
        try:
            await self._service.publish(_redriven(self._service, job))
            self._result.accepted += 1
        except BrokerUnavailable:
            self._stopped = True
            self._result.unknown += 1
        except TapeMissing:
            self._stopped = True
            self._result.refused += 1


def _redriven(service: JobService, job: ClosedJob) -> Redriven:
    run = job.run + 1
    return Redriven(
        id=ids.run_fact(job.id, run, Redriven.name),
        source=service.topology.source,
        subject=job.id,
        time=utc_now(),
        correlationid=job.correlation_id,
        data=RedrivenData(job_type=job.type, run=run, attempt=1),
    )
