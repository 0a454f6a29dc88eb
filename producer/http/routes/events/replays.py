"""``POST /replays``: send past events to a queue, as a job of the built-in type."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.representation import JobOut, accepted, location
from jobtape.producer.http.request_body import SmallJson
from jobtape.producer.producer import Producer
from jobtape.schemas.access import Caller
from jobtape.schemas.errors import SubmissionInvalid
from jobtape.schemas.job import Order
from jobtape.schemas.messages.replay_request import REPLAY, ReplayRequest, reason_to_refuse
from jobtape.schemas.submission import Submission, read_submission

router = APIRouter(tags=["tape"], dependencies=[Depends(no_query)])


@router.post(
    "/replays",
    status_code=202,
    response_model=JobOut,
    summary="Send past events to a queue",
    response_description="The replay is accepted, as a job.",
    responses=openapi.problems(400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(
        ReplayRequest,
        example={
            "queue": "audit",
            "since": "2030-01-31T00:00:00Z",
            "events": ["succeeded", "failed"],
            "types": ["mail.*"],
        },
    ),
)
async def replay(request: Request, producer: RunningProducer, body: SmallJson) -> Response:
    """The queue gets the events as they were delivered to subscribers, with the same ids and times, marked as replayed.
    No job runs again. The response is a job: follow or cancel it like any other.
    """
    job = await producer.submit_order(_order(producer, caller_of(request), body))
    return accepted(job, location(request, job))


def _order(producer: Producer, caller: Caller, payload: Any) -> Order:
    if caller.types and isinstance(payload, dict):
        given = payload.get("types") or []
        if isinstance(given, list) and all(isinstance(each, str) for each in given):
            payload = {**payload, "types": caller.narrow(given)}
    order = producer.order(read_submission({"type": REPLAY, "payload": payload}, Submission))
    if (reason := reason_to_refuse(order.payload["queue"], producer.topology.namespace)) is not None:
        raise SubmissionInvalid(reason, [{"loc": ("payload", "queue"), "msg": reason}])
    return order
