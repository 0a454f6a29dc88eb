"""``GET /events``: what happens, as server-sent events."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from jobtape.producer.http import openapi
from jobtape.producer.http import openapi_streams as live_openapi
from jobtape.producer.http.auth import RunningProducer
from jobtape.producer.http.stream_parameters import StreamQuery, begin_at
from jobtape.producer.live.event_stream import EventStream

router = APIRouter(tags=["live"])


@router.get(
    "/events",
    summary="What happens, as it happens",
    response_class=Response,
    responses={**live_openapi.stream("The events."), **openapi.problems(400, 401, 422, 503)},
    openapi_extra=openapi.headers(live_openapi.LAST_EVENT),
)
async def events(request: Request, query: Annotated[StreamQuery, Query()], producer: RunningProducer) -> Response:
    """Server-sent events: what was accepted, in the tape's order; what it says, a GET shows. A client that was cut
    sends the id of the last event that it received (browsers do so by themselves) and gets exactly what it missed.

    First comes `hello`, whose id is where the stream begins; `reset` when what was asked for is not kept any more, with
    the id that it goes on behind.
    """
    limits = producer.limits
    return EventStream(
        producer.listeners,
        query.selection(),
        begin_at(request, query),
        keep_alive=limits.keep_alive,
        stall=limits.stall,
    )
