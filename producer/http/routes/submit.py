"""``POST /jobs`` and ``POST /jobs/batch``."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from jobtape.producer.http import batch_body, openapi
from jobtape.producer.http import openapi_streams as live_openapi
from jobtape.producer.http import request_body as reading
from jobtape.producer.http.auth import RunningProducer, mount_path, scope_of
from jobtape.producer.http.problems import Problem, problem_of
from jobtape.producer.http.query_parameters import no_query
from jobtape.producer.http.representation import POLL_AFTER, job_out
from jobtape.producer.live import outcome_wait, prefer
from jobtape.producer.producer import Producer
from jobtape.producer.service.batches.batch import submit_many
from jobtape.producer.service.batches.outcome import ItemAccepted, ItemOutcome, ItemRefused, ItemUnknown
from jobtape.producer.service.errors import IdempotencyKeyInvalid
from jobtape.producer.service.idempotency import HEADER, KeyedOrder, key_in_header
from jobtape.schemas import plainjson
from jobtape.schemas.job import Order
from jobtape.schemas.submission import Submission, read_submission

router = APIRouter(tags=["jobs"], dependencies=[Depends(no_query)])


@router.post(
    "/jobs",
    status_code=202,
    summary="Submit a job",
    responses={
        **openapi.answers(202, "JobOut", "The job is accepted.", 400, 401, 408, 409, 413, 415, 422, 503),
        **openapi.answers(200, "JobOut", "Only with `Prefer: wait`: the job has ended."),
    },
    openapi_extra=openapi.submission_body() | openapi.headers(openapi.IDEMPOTENCY_KEY, live_openapi.PREFER),
)
async def submit(request: Request, producer: RunningProducer) -> Response:
    """The response comes when the job is recorded and on its queue. After a 503 the job may have been accepted or not.
    Send an `Idempotency-Key`: then you can repeat the request and still get one job only. With `Prefer: wait=N` the
    response is 200 with the outcome if the job ends within N seconds.
    """
    reading.media_type(request, reading.JSON)
    key = key_in_header(request.headers.getlist(HEADER))
    body = await reading.read_body(request, producer.limits.max_body)
    if key is None:
        job = await producer.place(await reading.unhurried(len(body), _order, producer, body))
    else:
        keyed = await reading.unhurried(len(body), _keyed, producer, key, body)
        job = await producer.place_once(scope_of(request), keyed)
    headers = {"Location": f"{mount_path(request)}/jobs/{job.id}"}
    if (seconds := prefer.wait_of(request, producer.limits.max_wait)) is not None:
        job, applied = await outcome_wait.outcome(producer, producer.listeners, job, seconds, request.receive)
        headers |= applied
        if outcome_wait.has_ended(job) and applied:
            return Response(to_json(job_out(job)), 200, headers, "application/json")
    headers["Retry-After"] = str(POLL_AFTER)
    return Response(to_json(job_out(job)), 202, headers, "application/json")


@router.post(
    "/jobs/batch",
    summary="Submit many jobs",
    responses=openapi.answers(200, "BatchOut", "The outcome of each item.", 400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.batch_body(),
)
async def submit_batch(request: Request, producer: RunningProducer) -> Response:
    """Each item is accepted or refused independently. Any other status than 200 means that no item was accepted."""
    kind = reading.media_type(request, reading.JSON, reading.NDJSON)
    if HEADER in request.headers:
        raise IdempotencyKeyInvalid(f"a batch takes no header {HEADER}: send an idempotency_key in each item")
    body = await reading.read_body(request, producer.limits.max_batch_bytes)
    items = await reading.unhurried(len(body), batch_body.items_of, body, kind, producer.limits.max_batch)
    sound = [item for item in items if not isinstance(item, Problem)]
    outcomes = iter(await submit_many(producer, sound, scope_of(request)))
    answers = [_refused(item) if isinstance(item, Problem) else _answer(next(outcomes)) for item in items]
    return Response(to_json(_summary(answers)), 200, media_type="application/json")


def _order(producer: Producer, body: bytes) -> Order:
    return producer.order(_submission(body))


def _keyed(producer: Producer, key: str, body: bytes) -> KeyedOrder:
    return producer.keyed(key, _submission(body))


def _submission(body: bytes) -> Submission:
    try:
        value = plainjson.loads_sent(body)
    except plainjson.NotJson as error:
        raise Problem("not-json", f"the body is not JSON: {error}") from None
    return read_submission(value, Submission)


def _answer(outcome: ItemOutcome) -> dict[str, Any]:
    match outcome:
        case ItemAccepted(job_id):
            return {"status": "accepted", "id": job_id}
        case ItemRefused(error):
            return _refused(problem_of(error))
        case ItemUnknown(job_id=job_id):
            return {"status": "unknown", "id": job_id}


def _refused(problem: Problem) -> dict[str, Any]:
    return {"status": "refused", "problem": problem.body()}


def _summary(answers: list[Mapping[str, Any]] | list[dict[str, Any]]) -> dict[str, Any]:
    counted = dict.fromkeys(("accepted", "refused", "unknown"), 0)
    for answer in answers:
        counted[answer["status"]] += 1
    return {**counted, "items": answers}
