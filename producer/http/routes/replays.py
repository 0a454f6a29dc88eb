"""``POST /replays``: send past events to a queue, as a job of the built-in type."""

from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from jobtape.producer.http import openapi
from jobtape.producer.http import request_body as reading
from jobtape.producer.http.auth import RunningProducer, mount_path
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.query_parameters import no_query
from jobtape.producer.http.representation import POLL_AFTER, job_out
from jobtape.producer.producer import Producer
from jobtape.schemas import plainjson
from jobtape.schemas.errors import SubmissionInvalid
from jobtape.schemas.job import Order
from jobtape.schemas.replay_order import REPLAY, reason_to_refuse
from jobtape.schemas.submission import Submission, read_submission

BODY_LIMIT: Final = 64 * 1024

router = APIRouter(tags=["tape"], dependencies=[Depends(no_query)])


@router.post(
    "/replays",
    status_code=202,
    summary="Send past events to a queue",
    responses=openapi.answers(202, "JobOut", "The replay is accepted, as a job.", 400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.replay_body(),
)
async def replay(request: Request, producer: RunningProducer) -> Response:
    """The queue gets the events as they were delivered to subscribers, with the same ids and times, marked as replayed.
    No job runs again. The response is a job: follow or cancel it like any other.
    """
    reading.media_type(request, reading.JSON)
    job = await producer.place(_order(producer, await reading.read_body(request, BODY_LIMIT)))
    headers = {"Location": f"{mount_path(request)}/jobs/{job.id}", "Retry-After": str(POLL_AFTER)}
    return Response(to_json(job_out(job)), 202, headers, "application/json")


def _order(producer: Producer, body: bytes) -> Order:
    try:
        payload = plainjson.loads_sent(body)
    except plainjson.NotJson as error:
        raise Problem("not-json", f"the body is not JSON: {error}") from None
    order = producer.order(read_submission({"type": REPLAY, "payload": payload}, Submission))
    if (reason := reason_to_refuse(order.payload["queue"], producer.topology.namespace)) is not None:
        raise SubmissionInvalid(reason, [{"loc": ("payload", "queue"), "msg": reason}])
    return order
