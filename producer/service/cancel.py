"""Cancelling: whether it is too late, as far as the view knows, and the event that asks for it."""

from jobtape.producer.service.errors import JobFinal
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.service import JobService
from jobtape.schemas.events import cancelled
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.topology import CANCEL_KEY


async def cancel(service: JobService, job_id: str) -> Job | None:
    """Ask for the end of the job's present run; the job as it was when asked, or None when there is none.

    The tape decides: an outcome that is on it before stays. Asking again, and for a job that is cancelled already,
    changes nothing. Raises JobFinal when it is too late, BrokerUnavailable when it is not known whether the broker
    has it (then ask again), TapeMissing, ViewBehind and ViewUnavailable.
    """
    job = await service.find(job_id)
    if job is not None and job.final:
        # It may have been redriven a moment ago, and then this is about a run that the view does not know yet.
        job = await service.find_now(job_id)
    if job is None:
        return None
    if job.state is JobState.CANCELLED:
        return job
    if job.final:
        raise JobFinal(f"the job {job.id} has {job.state} already; there is nothing to cancel", job.state)
    event = cancelled(job, source=service.topology.source, time=utc_now())
    await service.publish(event, CANCEL_KEY)
    return job
