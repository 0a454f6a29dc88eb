"""Cancelling: whether it is too late, as far as the view knows, and the event that asks for it."""

from typing import TYPE_CHECKING

from jobtape.producer.service.errors import JobFinal
from jobtape.producer.service.ids import utc_now
from jobtape.schemas.events import cancelled
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.topology import CANCEL_KEY

if TYPE_CHECKING:
    from jobtape.producer.service.service import Producer


async def cancel(producer: "Producer", job_id: str) -> Job | None:
    """See ``Producer.cancel``."""
    job = await producer.find(job_id)
    if job is not None and job.final:
        # It may have been redriven a moment ago, and then this is about a run that the view does not know yet.
        job = await producer.find_now(job_id)
    if job is None:
        return None
    if job.state is JobState.CANCELLED:
        return job
    if job.final:
        raise JobFinal(f"the job {job.id} has {job.state} already; there is nothing to cancel", job.state)
    event = cancelled(job, source=producer.topology.source, time=utc_now())
    await producer.publish(event, CANCEL_KEY)
    return job
