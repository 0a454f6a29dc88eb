"""``GET /jobs``, ``GET /jobs/{id}`` and its events: what the view knows, never less than what was accepted."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic_core import to_json

from jobtape.producer.http import openapi
from jobtape.producer.http import openapi_streams as live_openapi
from jobtape.producer.http.auth import RunningProducer
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.query_parameters import JobQueryString, JobsQuery, point_of
from jobtape.producer.http.representation import event_out, job_out
from jobtape.producer.http.stream_parameters import JobEventsQuery, begin_at
from jobtape.producer.live import event_stream, outcome_wait, prefer
from jobtape.producer.live.event_stream import Enough, EventStream, never
from jobtape.producer.live.follower import After
from jobtape.producer.live.outcome_wait import AWAITED
from jobtape.producer.producer import Producer
from jobtape.producer.service.errors import TooBusy
from jobtape.schemas import ids
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.job import ENDINGS, FINAL, Job
from jobtape.schemas.selection import Selection


def job_stream(producer: Producer, job_id: str, query: JobEventsQuery, after: After) -> EventStream:
    """Return the response. A stream that ends with the job delivers its final event also where it was not asked for."""
    wanted = events = frozenset(query.event)
    if query.until is not None and events:
        events |= AWAITED
    return EventStream(
        producer.listeners,
        Selection(job=job_id, events=events),
        after,
        keep_alive=producer.limits.keep_alive,
        stall=producer.limits.stall,
        enough=never if query.until is None else _has_ended(producer, job_id),
        hidden=events - wanted - ENDINGS,
    )


def _has_ended(producer: Producer, job_id: str) -> Enough:
    async def enough(name: str | None, position: int) -> bool:
        if name is not None and name not in AWAITED:
            return False
        try:
            job = await producer.look(job_id)
        except (ViewUnavailable, TooBusy):
            return False  # it is asked again with the next keep-alive
        # An ending that a redrive followed is not the end.
        return job is not None and job.state in FINAL and job.cursor <= position

    return enough


_LONGEST: Final = 8192


def prefers(request: Request, media_type: str, to: str) -> bool:
    """Whether the client asks for ``media_type`` more than for ``to``, which is what it gets otherwise."""
    header = ",".join(request.headers.getlist("accept"))[:_LONGEST]
    return _quality(header, media_type) > _quality(header, to)


def _quality(header: str, media_type: str) -> float:
    """Of the most specific range that fits: the type itself, then ``text/*``, then ``*/*``."""
    main = media_type.partition("/")[0]
    rank = {media_type: 3, f"{main}/*": 2, "*/*": 1}
    best, quality = 0, 0.0
    for part in header.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if rank.get(name, 0) > best:
            best, quality = rank[name], _q(parameters)
    return quality


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


PAGE: Final = 100

router = APIRouter(tags=["jobs"])
AS_OF: Final = "Jobtape-As-Of"
"""The header that says at which cursor an answer to ``as_of`` stands."""
JobId = Annotated[str, Path(description="The job's id.", examples=["0198c2a0-7b1e-7c3d-9f42-5a1d3b6c8e90"])]


@router.get(
    "/jobs",
    summary="List jobs, newest first",
    responses=openapi.answers(200, "JobPage", "A page.", 401, 410, 422, 503),
)
async def list_jobs(query: Annotated[JobsQuery, Query()], producer: RunningProducer) -> Response:
    """What the view knows now; a job just accepted may take a moment to show.

    With ``as_of`` what it was then; a page may then be short, or empty, and have a next one all the same.
    """
    if query.as_of is not None:
        cursor = await producer.past.cursor(point_of(query.as_of))
        then = await producer.past.page(query.to_job_query(query.limit), cursor)
        return _json({"items": [job_out(job) for job in then.jobs], "next": then.before}, {AS_OF: str(cursor)})
    found = await producer.list_jobs(query.to_job_query(query.limit + 1))
    page = found[: query.limit]
    following = page[-1].id if len(found) > query.limit else None
    return _json({"items": [job_out(job) for job in page], "next": following})


@router.get(
    "/jobs/{job_id}",
    summary="One job",
    responses=openapi.answers(200, "JobOut", "The job.", 304, 401, 404, 410, 422, 503),
    openapi_extra=openapi.headers(live_openapi.PREFER),
)
async def get_job(
    job_id: JobId, query: Annotated[JobQueryString, Query()], request: Request, producer: RunningProducer
) -> Response:
    """With ``ETag``; ask again with ``If-None-Match`` and get 304 while nothing has happened. With ``as_of`` as it was
    then. With ``Prefer: wait=N`` the answer comes when the job has ended, or, with ``If-None-Match`` too, when anything
    has happened; after N seconds at the latest.
    """
    known = ", ".join(request.headers.getlist("if-none-match")) or None
    if query.as_of is None:
        job, headers = await _awaited(producer, await _find(producer, job_id), known, request)
    else:
        job, cursor = await _find_then(producer, job_id, point_of(query.as_of))
        headers = {AS_OF: str(cursor)}
    headers["ETag"] = _etag(job)
    return Response(status_code=304, headers=headers) if _has(known, job) else _json(job_out(job), headers)


@router.get(
    "/jobs/{job_id}/events",
    summary="What happened to a job",
    responses=live_openapi.also_stream(openapi.answers(200, "EventPage", "A page.", 400, 401, 404, 410, 422, 503)),
    openapi_extra=openapi.headers(live_openapi.LAST_EVENT),
)
async def get_events(
    job_id: JobId, request: Request, query: Annotated[JobEventsQuery, Query()], producer: RunningProducer
) -> Response:
    """Its CloudEvents in the tape's order, those that changed nothing too. With `Accept: text/event-stream` a stream of
    those that changed it, as `GET /events`, from the first on, which stays open unless `until=final`.
    """
    stream = prefers(request, event_stream.MEDIA_TYPE, to="application/json")
    query.check(stream=stream)
    after = begin_at(request, query) if stream else 0
    job = await _find(producer, job_id)
    if stream:
        return job_stream(producer, job.id, query, after)
    limit = query.limit or PAGE
    found = await producer.history(job.id, query.after_cursor, limit + 1)
    page = found[:limit]
    following = page[-1].cursor if len(found) > limit else None
    return _json({"items": [event_out(row) for row in page], "next": following})


def job_id_of(text: str) -> str:
    """The canonical job id. Raises Problem when it is none."""
    job_id = ids.parse_job_id(text)
    if job_id is None:
        raise Problem("invalid-job-id", "a job id is a UUID, as POST /jobs gives it")
    return job_id


def no_such_job(job_id: str) -> Problem:
    """The problem 404."""
    return Problem("job-not-found", f"there is no job {job_id}")


async def _find(producer: Producer, text: str) -> Job:
    job_id = job_id_of(text)
    job = await producer.find(job_id)
    if job is None:
        raise no_such_job(job_id)
    return job


async def _find_then(producer: Producer, text: str, point: int | datetime) -> tuple[Job, int]:
    """The job as it was there, and at which cursor that is."""
    job_id = job_id_of(text)
    cursor = await producer.past.cursor(point)
    job = await producer.past.job(job_id, cursor)
    if job is None:
        raise Problem("job-not-found", f"at cursor {cursor} there was no job {job_id}")
    return job, cursor


async def _awaited(producer: Producer, job: Job, known: str | None, request: Request) -> outcome_wait.Waited:
    seconds = prefer.wait_of(request, producer.limits.max_wait)
    if seconds is None:
        return job, {}
    if known is None:
        return await outcome_wait.outcome(producer, producer.listeners, job, seconds, request.receive)
    return await outcome_wait.change(
        producer, producer.listeners, job, seconds, request.receive, lambda now: not _has(known, now)
    )


def _etag(job: Job) -> str:
    return f'"{job.cursor}"'


def _has(if_none_match: str | None, job: Job) -> bool:
    """Weak comparison with each of the list (RFC 9110, section 13.1.2)."""
    if if_none_match is None:
        return False
    etag = _etag(job)
    given = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in given or given == ["*"]


def _json(value: object, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), 200, headers, "application/json")
