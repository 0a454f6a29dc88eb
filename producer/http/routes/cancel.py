"""``POST /jobs/{id}/cancel``."""

from fastapi import APIRouter, Depends, Response
from pydantic_core import to_json

from jobtape.producer.http import openapi
from jobtape.producer.http.auth import RunningProducer
from jobtape.producer.http.query_parameters import no_query
from jobtape.producer.http.representation import POLL_AFTER, job_out
from jobtape.producer.http.routes.jobs import JobId, job_id_of, no_such_job

router = APIRouter(tags=["jobs"], dependencies=[Depends(no_query)])


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses=openapi.answers(202, "JobOut", "The cancellation is requested.", 401, 404, 409, 410, 422, 503),
)
async def cancel_job(job_id: JobId, producer: RunningProducer) -> Response:
    """The response is the job as it was at the time of the request. A job that ends at the same moment may still
    succeed or fail, so poll its state. A waiting job will not run. A running `async` handler is cancelled, an isolated
    one is killed. A handler in a thread runs to its end, but its result is ignored.
    """
    known = job_id_of(job_id)
    job = await producer.cancel(known)
    if job is None:
        raise no_such_job(known)
    return Response(to_json(job_out(job)), 202, {"Retry-After": str(POLL_AFTER)}, "application/json")
