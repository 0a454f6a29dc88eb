"""``GET /events``, ``GET /events/positions`` and ``GET /jobs/{id}/events``: events as a stream, where they are on the
tape, or a job's events as a page.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of, until_refused
from jobtape.producer.http.dependencies import JobId, RunningProducer
from jobtape.producer.http.representation import EventPage, PydanticJSONResponse, event_out
from jobtape.producer.http.routes.jobs.jobs import find_job
from jobtape.producer.http.stream_parameters import JobEventsQuery, StreamQuery, start_of
from jobtape.producer.live import event_stream
from jobtape.producer.live.event_stream import Enough, EventStream
from jobtape.producer.live.follower import After, StartPosition
from jobtape.producer.producer import Producer
from jobtape.producer.service.errors import TooBusy
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.events import Submitted
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.job import ENDINGS, FINAL

PAGE: Final = 100
AWAITED: Final = ENDINGS | {Submitted.name}
"""The events after which a job may have ended. An outcome may overtake the submission, and counts when both exist."""

router = APIRouter()


@router.get(
    "/events",
    tags=["live"],
    summary="Stream events",
    response_class=Response,
    responses={200: {"description": "The events.", "content": openapi.STREAM}, **openapi.problems(400, 401, 422, 503)},
    openapi_extra=openapi.headers(openapi.LAST_EVENT),
)
async def events(request: Request, query: Annotated[StreamQuery, Query()], producer: RunningProducer) -> Response:
    """Server-sent events: the events that changed a job, in the order of the tape. After you receive an event, a GET of
    its job already includes it. After a lost connection, send the id of the last event that you received (browsers do
    so themselves) to get exactly what you missed.

    The first message is `hello`, whose id is the position where the stream starts. `reset` means that the history after
    the requested position was deleted; the stream continues after its id.
    """
    start = start_of(request, query)
    query.type = caller_of(request).narrow(query.type)
    return _stream(producer, query.selection(), start, until=until_refused(request))


class PositionOut(BaseModel):
    """An event's position."""

    cursor: int
    time: datetime


class Positions(BaseModel):
    """Events in the order of the tape: the first one, the last one, and others between which there are equally many
    messages.
    """

    items: list[PositionOut]


class PositionsQuery(BaseModel, extra="forbid"):
    """The query parameters of ``GET /events/positions``."""

    limit: int = Field(100, ge=2, le=500, description="The largest number of positions.")


@router.get(
    "/events/positions",
    tags=["live"],
    response_model=Positions,
    summary="Divide the history evenly",
    responses=openapi.problems(401, 422, 503),
)
async def positions(query: Annotated[PositionsQuery, Query()], producer: RunningProducer) -> Response:
    """Says when how much happened without counting: the closer two positions are in time, the more happened between
    them. Each cursor can be used as `as_of`. Begins where the history is complete.
    """
    found = await producer.past.positions(query.limit)
    return PydanticJSONResponse({"items": [asdict(position) for position in found]})


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    response_model=EventPage,
    summary="Get the events of a job",
    responses={200: {"content": openapi.STREAM}, **openapi.problems(400, 401, 404, 410, 422, 503)},
    openapi_extra=openapi.headers(openapi.LAST_EVENT),
)
async def get_events(
    job_id: JobId, request: Request, query: Annotated[JobEventsQuery, Query()], producer: RunningProducer
) -> Response:
    """CloudEvents in the order of the tape, also those that did not change the job. With `Accept: text/event-stream` a
    stream as in `GET /events`, of the events that changed the job, from the first one on. The stream stays open unless
    `until=final` is given.
    """
    stream = event_stream.MEDIA_TYPE in ",".join(request.headers.getlist("accept")).lower()
    query.check(stream=stream)
    start = start_of(request, query) if stream else query.after
    await find_job(producer, job_id)
    if stream:
        return _job_stream(producer, job_id, query, start, until_refused(request))
    limit = query.limit or PAGE
    after = 0 if isinstance(start, StartPosition) else start
    found = await producer.read(producer.store.history, job_id, after, limit + 1)
    page = found[:limit]
    following = page[-1].cursor if len(found) > limit else None
    return PydanticJSONResponse({"items": [event_out(row) for row in page], "next": following})


def _stream(producer: Producer, selection: Selection, start: After, **more: Any) -> EventStream:
    limits = producer.limits
    return EventStream(
        producer.listeners, selection, start, keep_alive=limits.keepalive_interval, stall=limits.send_timeout, **more
    )


def _job_stream(
    producer: Producer, job_id: str, query: JobEventsQuery, start: After, until: Callable[[], Awaitable[None]] | None
) -> EventStream:
    """Return the response. A stream that ends with the job delivers the final event even if ``event`` excludes it."""
    wanted = frozenset(query.event)
    if query.until is None:
        return _stream(producer, Selection(job=job_id, events=wanted), start, until=until)
    read = wanted | AWAITED if wanted else wanted
    return _stream(
        producer,
        Selection(job=job_id, events=read),
        start,
        enough=_has_ended(producer, job_id),
        hidden=read - wanted - ENDINGS,
        until=until,
    )


def _has_ended(producer: Producer, job_id: str) -> Enough:
    async def enough(name: str | None, position: int) -> bool:
        if name is not None and name not in AWAITED:
            return False
        try:
            job = await producer.job_in_view(job_id)
        except (ViewUnavailable, TooBusy):
            return False  # checked again at the next keep-alive
        # A job that was redriven after it ended has not ended.
        return job is not None and job.state in FINAL and job.cursor <= position

    return enough
