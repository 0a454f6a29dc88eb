"""``POST /jobs/{id}/redrive`` and ``POST /redrives``."""

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, BaseModel, Field, StrictBool, ValidationError
from pydantic_core import to_json

from jobtape.producer.http import openapi
from jobtape.producer.http import request_body as reading
from jobtape.producer.http.auth import RunningProducer
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.query_parameters import ListQuery, no_query
from jobtape.producer.http.representation import POLL_AFTER, job_out
from jobtape.producer.http.routes.jobs import JobId, job_id_of, no_such_job
from jobtape.producer.service.redrive import redrive, redrive_many
from jobtape.schemas import plainjson
from jobtape.schemas.job import FINAL, JobState

MOST: Final = 10_000
BODY_LIMIT: Final = 64 * 1024
MAX_IDS: Final = 100

router = APIRouter(tags=["jobs"], dependencies=[Depends(no_query)])


def _final(state: JobState) -> JobState:
    if state not in FINAL:
        raise ValueError(f"only jobs that have ended can be redriven: {', '.join(sorted(FINAL))}")
    return state


class RedriveQuery(ListQuery):
    """The jobs to redrive: the filters of ``GET /jobs``, each a list. Without ``state``: the failed jobs."""

    state: list[Annotated[JobState, AfterValidator(_final)]] = Field([JobState.FAILED], min_length=1, max_length=3)
    limit: int = Field(MOST, ge=1, le=MOST, strict=True)
    dry_run: StrictBool = Field(False, description="Return how many and which jobs match, and change nothing.")


class RedrivesOut(BaseModel):
    """The number of jobs that matched and their outcomes. ``accepted``: the job runs again. ``refused``: nothing was
    published, because the submission is not stored or the broker stopped confirming. ``unknown``: the broker did not
    confirm. A dry run changes nothing.
    """

    dry_run: bool
    matched: int
    accepted: int
    refused: int
    unknown: int
    ids: list[str] = Field(description=f"The first {MAX_IDS} jobs that matched, newest first.")
    next: str | None = Field(description="Send it as `cursor` to redrive the next jobs; null when there are no more.")


@router.post(
    "/jobs/{job_id}/redrive",
    status_code=202,
    summary="Run an ended job again",
    responses=openapi.answers(202, "JobOut", "The next run is accepted.", 401, 404, 409, 410, 422, 503),
)
async def redrive_job(job_id: JobId, producer: RunningProducer) -> Response:
    """The job starts again as run 2, 3, … and keeps its history. Another request during that run changes nothing."""
    known = job_id_of(job_id)
    job = await redrive(producer, known)
    if job is None:
        raise no_such_job(known)
    return Response(to_json(job_out(job)), 202, {"Retry-After": str(POLL_AFTER)}, "application/json")


@router.post(
    "/redrives",
    summary="Run many ended jobs again",
    responses=openapi.answers(200, "RedrivesOut", "The outcome of the redrive.", 400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.redrive_body(),
)
async def redrive_jobs(request: Request, producer: RunningProducer) -> Response:
    """First the jobs that match are looked up, then each is redriven. One request redrives up to 10,000 jobs."""
    reading.media_type(request, reading.JSON)
    query = _query(await reading.read_body(request, BODY_LIMIT))
    found = await redrive_many(producer, query.to_job_query(query.limit + 1), dry_run=query.dry_run)
    answer: dict[str, Any] = {"dry_run": query.dry_run, **asdict(found), "ids": found.ids[:MAX_IDS]}
    answer["next"] = found.ids[-1] if answer.pop("more") else None
    return Response(to_json(answer), 200, media_type="application/json")


def _query(body: bytes) -> RedriveQuery:
    try:
        return RedriveQuery.model_validate(plainjson.loads_sent(body))
    except plainjson.NotJson as error:
        raise Problem("not-json", f"the body is not JSON: {error}") from None
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"]) for fault in error.errors(include_url=False)]
        raise Problem("invalid-redrive", f"{faults[0][0] or 'the body'}: {faults[0][1]}", errors=faults) from None
