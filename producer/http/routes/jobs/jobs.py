"""``GET /jobs``, ``GET /jobs/{id}``, ``POST /jobs/{id}/cancel`` and ``…/redrive``."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import JobId, RunningProducer, no_query
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.query_parameters import JobParameters, JobsQuery
from jobtape.producer.http.representation import JobOut, JobPage, PydanticJSONResponse, accepted, job_out
from jobtape.producer.live.outcome_wait import Waited, wait_as_preferred
from jobtape.producer.producer import Producer
from jobtape.schemas.job import Job

AS_OF: Final = "Jobtape-As-Of"
"""The header with the cursor at which a response to ``as_of`` shows the jobs."""

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs",
    response_model=JobPage,
    summary="List jobs, newest first",
    responses=openapi.problems(401, 410, 422, 503),
    openapi_extra=openapi.SEARCH,
)
async def list_jobs(query: Annotated[JobsQuery, Query()], request: Request, producer: RunningProducer) -> Response:
    """A job that was just accepted may be missing for a moment.

    With ``as_of`` the jobs are returned as they were then. ``payload.<path>`` and ``result.<path>`` search for a value,
    such as ``payload.customer.id=42``: a string, or the JSON text of a number, ``true``, ``false`` or ``null``. In a
    list, the path goes on in each element, or at an index. A search examines up to 20,000 jobs for a page, for about a
    second. A page of a search or of the past can be short or even empty and still have a ``next``.
    """
    query.type = caller_of(request).narrow(query.type)
    if query.as_of is not None:
        cursor = await producer.past.cursor(query.as_of)
        past = await producer.read(producer.store.past.page, query.to_job_query(query.limit), cursor)
        body = {"items": [job_out(job) for job in past.jobs], "next": past.before, "scanned": None}
        return PydanticJSONResponse(body, headers={AS_OF: str(cursor)})
    if query.search():
        page = await producer.search(producer.store.search.page, query.to_job_query(query.limit))
        items = [job_out(job) for job in page.jobs]
        return PydanticJSONResponse({"items": items, "next": page.before, "scanned": page.scanned})
    found = await producer.read(producer.store.list_jobs, query.to_job_query(query.limit + 1))
    jobs = found[: query.limit]
    following = jobs[-1].id if len(found) > query.limit else None
    return PydanticJSONResponse({"items": [job_out(job) for job in jobs], "next": following, "scanned": None})


@router.get(
    "/jobs/{job_id}",
    response_model=JobOut,
    summary="Get a job",
    responses={
        304: {"description": "Not modified: the `ETag` is one of those in `If-None-Match`."},
        **openapi.problems(401, 404, 410, 422, 503),
    },
    openapi_extra=openapi.headers(openapi.PREFER),
)
async def get_job(
    job_id: JobId, query: Annotated[JobParameters, Query()], request: Request, producer: RunningProducer
) -> Response:
    """The response has an ``ETag``. Send it as ``If-None-Match`` to get 304 if the job has not changed. With ``as_of``
    the job is returned as it was then. With ``Prefer: wait=N`` the response comes when the job has ended or, with
    ``If-None-Match`` too, when it has changed; after N seconds at the latest.
    """
    known = ", ".join(request.headers.getlist("if-none-match")) or None
    if query.as_of is None:
        job, headers = await _waited(producer, await find_job(producer, job_id), known, request)
    else:
        job, cursor = await past_job(producer, job_id, query.as_of)
        headers = {AS_OF: str(cursor)}
    headers["ETag"] = _etag(job)
    if _matches(known, job):
        return Response(status_code=304, headers=headers)
    return PydanticJSONResponse(job_out(job), headers=headers)


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    response_model=JobOut,
    summary="Cancel a job",
    response_description="The cancellation is requested.",
    responses=openapi.problems(401, 404, 409, 410, 422, 503),
    dependencies=[Depends(no_query)],
)
async def cancel_job(job_id: JobId, producer: RunningProducer) -> Response:
    """The response is the job as it was at the time of the request. A job that ends at the same moment may still
    succeed or fail, so poll its state. A waiting job will not run. A running `async` handler is cancelled, an isolated
    one is killed. A handler in a thread runs to its end, but its result is ignored.
    """
    return accepted(existing(await producer.cancel(job_id), job_id))


@router.post(
    "/jobs/{job_id}/redrive",
    status_code=202,
    response_model=JobOut,
    summary="Run an ended job again",
    response_description="The next run is accepted.",
    responses=openapi.problems(401, 404, 409, 410, 422, 503),
    dependencies=[Depends(no_query)],
)
async def redrive_job(job_id: JobId, producer: RunningProducer) -> Response:
    """The job starts again as run 2, 3, … and keeps its history. Another request during that run changes nothing."""
    return accepted(existing(await producer.redrive(job_id), job_id))


@router.post(
    "/jobs/{job_id}/release",
    status_code=202,
    response_model=JobOut,
    summary="Release an ordering key",
    response_description="The job gives up its ordering key.",
    responses=openapi.problems(401, 404, 409, 410, 422, 503),
    dependencies=[Depends(no_query)],
)
async def release_job(job_id: JobId, producer: RunningProducer) -> Response:
    """A job with `on_failure="hold"` that has failed keeps its ordering key: later jobs with the key wait. After this
    request they run. For a job that keeps no key nothing changes.
    """
    return accepted(existing(await producer.release(job_id), job_id))


def existing(job: Job | None, job_id: str) -> Job:
    """Return ``job``. Raises the problem 404 when it is None."""
    if job is None:
        raise Problem("job-not-found", f"there is no job {job_id}")
    return job


async def find_job(producer: Producer, job_id: str) -> Job:
    """Return the job. Raises the problem 404 when there is none."""
    return existing(await producer.job(job_id), job_id)


async def past_job(producer: Producer, job_id: str, point: int | datetime) -> tuple[Job, int]:
    """Return the job as it was at ``point``, and the cursor of that point."""
    cursor = await producer.past.cursor(point)
    job = await producer.read(producer.store.past.job, job_id, cursor)
    if job is None:
        raise Problem("job-not-found", f"at cursor {cursor} there was no job {job_id}")
    return job, cursor


async def _waited(producer: Producer, job: Job, known: str | None, request: Request) -> Waited:
    if known is None:
        return await wait_as_preferred(producer, producer.listeners, job, request)
    return await wait_as_preferred(
        producer, producer.listeners, job, request, enough=lambda now: not _matches(known, now)
    )


def _etag(job: Job) -> str:
    return f'"{job.cursor}"'


def _matches(if_none_match: str | None, job: Job) -> bool:
    """Compare weakly with each tag of the list (RFC 9110, section 13.1.2)."""
    if if_none_match is None:
        return False
    given = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return _etag(job) in given or given == ["*"]
