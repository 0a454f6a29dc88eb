"""``POST /jobs/{id}/cancel``."""

from fastapi import APIRouter, Depends, Response
from pydantic_core import to_json

from jobtape.producer.http import openapi
from jobtape.producer.http.auth import RunningProducer
from jobtape.producer.http.query_parameters import no_query
from jobtape.producer.http.representation import job_out
from jobtape.producer.http.routes.jobs import JobId, job_id_of, no_such_job
from jobtape.producer.service.cancel import cancel

POLL_AFTER = 1
"""Seconds until it is worth asking what became of it."""

router = APIRouter(tags=["jobs"], dependencies=[Depends(no_query)])


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses=openapi.answers(202, "JobOut", "Asked for, or cancelled already.", 401, 404, 409, 410, 422, 503),
)
async def cancel_job(job_id: JobId, producer: RunningProducer) -> Response:
    """The answer is the job as it was when asked. The tape decides: a job that ends at the same moment may still
    succeed or fail, so ask for its state. A job that waits will not run; a running `async` handler is cancelled, an
    isolated one killed, and a thread runs on to its end, which changes nothing any more.
    """
    known = job_id_of(job_id)
    job = await cancel(producer, known)
    if job is None:
        raise no_such_job(known)
    return Response(to_json(job_out(job)), 202, {"Retry-After": str(POLL_AFTER)}, "application/json")
