"""Redriving: which jobs, and the event that opens their next run. The work itself is placed by the fold's effect.

The event's id is ``<job>/<run>/redriven``, so however many ask at once, the job has one next run.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from jobtape.producer.service.errors import JobNotFinal, SubmissionNotKept
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.service import JobService
from jobtape.schemas import ids
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.schemas.events import Redriven, RedrivenData
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from jobtape.view.store import ClosedJob, JobQuery

IN_FLIGHT: Final = 500


@dataclass(slots=True)
class Redrives:
    """What became of many: ``matched`` = ``accepted`` + ``refused`` (nothing was published) + ``unknown`` (no confirm
    came), except for a dry run. ``ids``: all that matched, newest first; ``next``: whether there are more.
    """

    matched: int
    ids: Sequence[str]
    more: bool
    accepted: int = 0
    refused: int = 0
    unknown: int = 0


async def redrive(service: JobService, job_id: str) -> Job | None:
    """Let a job that has ended run again; the job in its next run, or None when there is none.

    Asking again while a run is open that was opened so changes nothing. Raises JobNotFinal, SubmissionNotKept,
    BrokerUnavailable when it is not known whether the broker has it (then ask again), TapeMissing, ViewBehind and
    ViewUnavailable.
    """
    if await service.find(job_id) is None:
        return None
    job = await service.find_now(job_id)
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
    """Let the jobs of ``query``, of final states only, run again, all but the last of its limit: that one shows
    whether there are more. With ``dry_run`` only what that would be. Raises as ``redrive`` does when nothing was
    published at all.
    """
    found = await service.closed_jobs_now(query)
    jobs = found[: query.limit - 1]
    result = Redrives(matched=len(jobs), ids=[job.id for job in jobs], more=len(found) > len(jobs))
    if dry_run or not jobs:
        return result
    service.watch.require_tape()
    if (trouble := service.watch.broker_trouble) is not None:
        raise BrokerUnavailable(f"nothing was redriven: {trouble}")
    sender = _Sender(service, result)
    waiting = iter(jobs)
    async with asyncio.TaskGroup() as group:
        for _ in range(min(IN_FLIGHT, len(jobs))):
            group.create_task(sender.send(waiting))
    return result


class _Sender:
    """Publishes until the broker stops confirming; what was not sent by then is refused."""

    def __init__(self, service: JobService, result: Redrives) -> None:
        self._service = service
        self._result = result
        self._stopped = False

    async def send(self, jobs: Iterator[ClosedJob]) -> None:
        for job in jobs:
            if self._stopped or not job.known:
                self._result.refused += 1
                continue
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
