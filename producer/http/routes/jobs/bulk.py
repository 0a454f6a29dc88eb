"""``POST /redrives`` and ``POST /cancels``: act on all jobs of a filter, as a job of a built-in type."""

from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, StrictBool, ValidationError

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import JobId, RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse, accepted, location
from jobtape.producer.http.request_body import JSON, media_type, parse_json, read_body
from jobtape.producer.producer import Producer
from jobtape.schemas.filters.job_filter import CANCEL, REDRIVE, CancelRequest, RedriveRequest
from jobtape.schemas.job import JobState
from jobtape.schemas.submission import Submission, read_submission
from jobtape.view.jobs.job_search import MOST_REDRIVEN
from jobtape.view.store import JobQuery

MOST_COUNTED: Final = 10_000
MAX_IDS: Final = 100
MAX_BODY: Final = 512 * 1024
"""Bytes: enough for the largest number of ids."""
DRY_RUN: Final = Field(False, description="Only return how many and which jobs match.")

router = APIRouter(tags=["jobs"], dependencies=[Depends(no_query)])


class RedriveBody(RedriveRequest):
    """The ended jobs to run again. Built-in jobs are left out unless ``type`` names them."""

    dry_run: StrictBool = DRY_RUN


class CancelBody(CancelRequest):
    """The open jobs to cancel. Built-in jobs are left out unless ``type`` names them."""

    dry_run: StrictBool = DRY_RUN


class Preview(BaseModel):
    """The jobs that match now."""

    matched: int = Field(description=f"The number of jobs, up to {MOST_COUNTED:,}.")
    more: bool = Field(description="Whether there may be more: then the count, or the search, was ended before.")
    ids: list[str] = Field(description=f"The first {MAX_IDS}, newest first.")


class RedrivenOut(BaseModel):
    """What became of the first redriven jobs."""

    jobs: dict[JobState, int] = Field(description=f"Numbers of jobs by state, of the first {MOST_REDRIVEN:,}.")
    later: int = Field(description="How many of them were redriven again after that.")


def _responses() -> openapi.Responses:
    preview = {"model": Preview, "description": "With `dry_run`: the jobs that match."}
    return {200: preview, **openapi.problems(400, 401, 408, 413, 415, 422, 503)}


@router.post(
    "/redrives",
    status_code=202,
    response_model=JobOut,
    summary="Run many ended jobs again",
    response_description="The redrive is accepted, as a job.",
    responses=_responses(),
    openapi_extra=openapi.body(
        RedriveBody,
        example={"type": ["add"], "reason": ["timeout"], "since": "2030-01-31T00:00:00Z", "dry_run": True},
    ),
)
async def redrive_jobs(request: Request, producer: RunningProducer) -> Response:
    """The response is a job, of the type `jobtape.redrive`: follow or cancel it like any other. It redrives the jobs
    that match when it begins, the newest first, and its result counts them.
    """
    return await _respond(request, producer, REDRIVE, RedriveBody)


@router.post(
    "/cancels",
    status_code=202,
    response_model=JobOut,
    summary="Cancel many jobs",
    response_description="The cancellation is accepted, as a job.",
    responses=_responses(),
    openapi_extra=openapi.body(CancelBody, example={"type": ["add"], "state": ["queued"], "dry_run": True}),
)
async def cancel_jobs(request: Request, producer: RunningProducer) -> Response:
    """The response is a job, of the type `jobtape.cancel`: follow or cancel it like any other. It cancels the jobs that
    match when it begins, the newest first, and its result counts them.
    """
    return await _respond(request, producer, CANCEL, CancelBody)


@router.get(
    "/redrives/{job_id}",
    response_model=RedrivenOut,
    summary="Count what became of redriven jobs",
    responses=openapi.problems(401, 404, 422, 503),
)
async def read_redrive(job_id: JobId, producer: RunningProducer) -> Response:
    """The jobs that this redrive has run again so far, by their states in that run."""
    found = await producer.read(producer.store.search.redriven, job_id)
    if found is None:
        raise Problem("job-not-found", f"there is no redrive {job_id}: `POST /redrives` returns its id")
    return PydanticJSONResponse({"jobs": found.states, "later": found.later})


async def _respond(
    request: Request, producer: Producer, job_type: str, model: type[RedriveBody] | type[CancelBody]
) -> Response:
    media_type(request, JSON)
    wanted = _parsed(model, parse_json(await read_body(request, MAX_BODY)))
    if types := caller_of(request).narrow(wanted.type):
        wanted = wanted.model_copy(update={"type": types})
    if wanted.dry_run:
        query = JobQuery.of(wanted, min(wanted.limit or MOST_COUNTED, MOST_COUNTED))
        found = await producer.matching(query)
        more = found.before is not None and len(found.jobs) != wanted.limit
        ids = [job.id for job in found.jobs[:MAX_IDS]]
        return PydanticJSONResponse({"matched": len(found.jobs), "more": more, "ids": ids})
    payload = wanted.model_dump(mode="json", exclude_unset=True, exclude={"dry_run"})
    job = await producer.submit_order(
        producer.order(read_submission({"type": job_type, "payload": payload}, Submission))
    )
    return accepted(job, location(request, job))


def _parsed(model: type[RedriveBody] | type[CancelBody], body: Any) -> RedriveBody | CancelBody:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"]) for fault in error.errors(include_url=False)]
        raise Problem("invalid-filter", f"{faults[0][0] or 'the body'}: {faults[0][1]}", errors=faults) from None
