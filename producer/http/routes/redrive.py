"""``POST /jobs/{id}/redrive`` and ``POST /redrives``."""

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response
from pydantic import AfterValidator, BaseModel, Field, StrictBool, ValidationError

from jobtape.producer.http import openapi
from jobtape.producer.http.dependencies import JobId, RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.query_parameters import ListQuery
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse, accepted
from jobtape.producer.http.request_body import SmallJson
from jobtape.producer.http.routes.jobs import existing
from jobtape.producer.service.redrive import redrive, redrive_many
from jobtape.schemas.job import FINAL, JobState

MAX_JOBS: Final = 10_000
MAX_IDS: Final = 100

router = APIRouter(tags=["jobs"], dependencies=[Depends(no_query)])


def _final(state: JobState) -> JobState:
    if state not in FINAL:
        raise ValueError(f"only jobs that have ended can be redriven: {', '.join(sorted(FINAL))}")
    return state


class RedriveQuery(ListQuery):
    """The jobs to redrive: the filters of ``GET /jobs``, each a list. Without ``state``: the failed jobs."""

    state: list[Annotated[JobState, AfterValidator(_final)]] = Field([JobState.FAILED], min_length=1, max_length=3)
    limit: int = Field(MAX_JOBS, ge=1, le=MAX_JOBS, strict=True)
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
    response_model=JobOut,
    summary="Run an ended job again",
    response_description="The next run is accepted.",
    responses=openapi.problems(401, 404, 409, 410, 422, 503),
)
async def redrive_job(job_id: JobId, producer: RunningProducer) -> Response:
    """The job starts again as run 2, 3, … and keeps its history. Another request during that run changes nothing."""
    return accepted(existing(await redrive(producer, job_id), job_id))


@router.post(
    "/redrives",
    response_model=RedrivesOut,
    summary="Run many ended jobs again",
    response_description="The outcome of the redrive.",
    responses=openapi.problems(400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(
        RedriveQuery,
        example={"type": ["add"], "reason": ["timeout"], "since": "2030-01-31T00:00:00Z", "dry_run": True},
    ),
)
async def redrive_jobs(producer: RunningProducer, body: SmallJson) -> Response:
    """First the jobs that match are looked up, then each is redriven. One request redrives up to 10,000 jobs."""
    query = _parse(body)
    found = await redrive_many(producer, query.to_job_query(query.limit + 1), dry_run=query.dry_run)
    result: dict[str, Any] = {"dry_run": query.dry_run, **asdict(found), "ids": found.ids[:MAX_IDS]}
    result["next"] = found.ids[-1] if result.pop("more") else None
    return PydanticJSONResponse(result)


def _parse(body: Any) -> RedriveQuery:
    try:
        return RedriveQuery.model_validate(body)
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"]) for fault in error.errors(include_url=False)]
        raise Problem("invalid-redrive", f"{faults[0][0] or 'the body'}: {faults[0][1]}", errors=faults) from None
