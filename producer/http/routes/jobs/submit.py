"""``POST /jobs`` and ``POST /jobs/batch``."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from jobtape.producer.http import openapi, request_body
from jobtape.producer.http.access import caller_of, idempotency_scope
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.problems import Problem, problem_of
from jobtape.producer.http.representation import (
    BatchOut,
    JobOut,
    PydanticJSONResponse,
    accepted,
    job_out,
    location,
)
from jobtape.producer.live.outcome_wait import wait_as_preferred
from jobtape.producer.producer import Producer
from jobtape.producer.service.batches.batch import submit_many
from jobtape.producer.service.batches.outcome import ItemAccepted, ItemOutcome, ItemRefused, ItemUnknown
from jobtape.producer.service.errors import IdempotencyKeyInvalid
from jobtape.producer.service.submission.idempotency import HEADER, key_in_header
from jobtape.schemas import plainjson
from jobtape.schemas.access import Caller, Forbidden
from jobtape.schemas.errors import SubmissionInvalid
from jobtape.schemas.job import Job
from jobtape.schemas.submission import BatchSubmission, Submission, read_submission

_PLAIN: dict[str, Any] = {"type": "add", "payload": {"x": 3, "y": 4}}
_WITH_OPTIONS: dict[str, Any] = {
    **_PLAIN,
    "timeout": 30,
    "labels": {"customer": "42"},
    "correlation_id": "order-7",
}
_CHAIN: dict[str, Any] = {**_PLAIN, "then": [{"type": "add", "payload": {"x": {"$previous": ""}, "y": 1}}]}
_LINES = (
    '{"type": "add", "payload": {"x": 1, "y": 2}, "idempotency_key": "sum-1"}\n'
    '{"type": "add", "payload": {"x": 3, "y": 4}}\n'
)

router = APIRouter(tags=["jobs"], dependencies=[Depends(no_query)])


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobOut,
    summary="Submit a job",
    response_description="The job is accepted.",
    responses={
        200: {"model": JobOut, "description": "Only with `Prefer: wait`: the job has ended."},
        **openapi.problems(400, 401, 408, 409, 413, 415, 422, 503),
    },
    openapi_extra=openapi.body(
        Submission,
        examples={
            "plain": {"value": _PLAIN},
            "with options": {"value": _WITH_OPTIONS},
            "a chain": {"value": _CHAIN},
        },
    )
    | openapi.headers(openapi.IDEMPOTENCY_KEY, openapi.PREFER),
)
async def submit(request: Request, producer: RunningProducer) -> Response:
    """The response comes when the job is recorded and, if it can begin now, on its queue. After a 503 the job may have
    been accepted or not.
    Send an `Idempotency-Key`: then you can repeat the request and still get one job only. With `Prefer: wait=N` the
    response is 200 with the outcome if the job ends within N seconds. With `then` the job is a flow: a chain of jobs.
    """
    return await submit_and_answer(request, producer, _submission)


async def submit_and_answer(request: Request, producer: Producer, read: Callable[[bytes], Submission]) -> Response:
    """Submit what ``read`` makes of the body, and return the response."""
    request_body.media_type(request, request_body.JSON)
    key = key_in_header(request.headers.getlist(HEADER))
    body = await request_body.read_body(request, producer.limits.max_body)
    caller = caller_of(request)

    def allowed() -> Submission:
        submission = read(body)
        caller.check_submission(submission.type, submission.payload, submission.then)
        return submission

    if key is None:
        job = await producer.submit_order(await request_body.call(len(body), lambda: producer.order(allowed())))
    else:
        keyed = await request_body.call(len(body), lambda: producer.keyed(key, allowed()))
        job = await producer.submit_once(idempotency_scope(request), keyed)
    return await answer_for(request, producer, job, new=key is None)


async def answer_for(request: Request, producer: Producer, job: Job, *, new: bool) -> Response:
    """Return the response to a request that has submitted ``job``, after the wait that the request prefers.

    ``new``: this request has submitted it, not one before with the same key.
    """
    headers = location(request, job)
    job, applied = await wait_as_preferred(producer, producer.listeners, job, request, new=new)
    headers |= applied
    if applied and job.final:
        return PydanticJSONResponse(job_out(job), 200, headers)
    return accepted(job, headers)


@router.post(
    "/jobs/batch",
    response_model=BatchOut,
    summary="Submit many jobs",
    response_description="The outcome of each item.",
    responses=openapi.problems(400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.bodies(
        {
            request_body.JSON: {
                "schema": {"type": "array", "items": {"$ref": openapi.REF + "BatchSubmission"}, "minItems": 1},
                "example": [_PLAIN, _WITH_OPTIONS],
            },
            request_body.NDJSON: {"schema": {"type": "string"}, "example": _LINES},
        }
    ),
)
async def submit_batch(request: Request, producer: RunningProducer) -> Response:
    """Each item is accepted or refused independently. Any other status than 200 means that no item was accepted."""
    kind = request_body.media_type(request, request_body.JSON, request_body.NDJSON)
    if HEADER in request.headers:
        raise IdempotencyKeyInvalid(f"a batch takes no header {HEADER}: send an idempotency_key in each item")
    body = await request_body.read_body(request, producer.limits.max_batch_bytes)
    items = await request_body.call(
        len(body), lambda: batch_items(body, kind, producer.limits.max_batch, caller_of(request))
    )
    valid = [item for item in items if not isinstance(item, Problem)]
    outcomes = iter(await submit_many(producer, valid, idempotency_scope(request)))
    results = [_refused(item) if isinstance(item, Problem) else _result(next(outcomes)) for item in items]
    counts = Counter(result["status"] for result in results)
    return PydanticJSONResponse(
        {status: counts[status] for status in ("accepted", "refused", "unknown")} | {"items": results}
    )


def batch_items(body: bytes, kind: str, limit: int, caller: Caller) -> list[BatchSubmission | Problem]:
    """Return the submissions in their order, with a problem instead of each one that is not valid or not allowed.

    Raises Problem when the body cannot be split, is empty, or has more than ``limit`` items. A line of NDJSON that is
    not JSON is the problem of one item, because the other lines can still be read.
    """
    if kind == request_body.NDJSON:
        # A file made of several files can have a byte order mark at the start of each.
        items = [line for line in body.split(b"\n") if line.removeprefix(plainjson.MARK).strip()]
    else:
        items = request_body.parse_json(body)
        if not isinstance(items, list):
            form = f"an array of submissions, or {request_body.NDJSON} with one submission in each line"
            raise Problem("invalid-batch", f"a batch is {form}")
    if not items:
        raise Problem("invalid-batch", "a batch has at least one submission")
    if len(items) > limit:
        raise Problem(
            "invalid-batch", f"a batch may have {limit} submissions (JOBTAPE_MAX_BATCH); send several batches"
        )
    return [_read_item(item, caller) for item in items]


def _read_item(item: Any, caller: Caller) -> BatchSubmission | Problem:
    """Return the submission in ``item``: a line as bytes, or the value of an array's item."""
    try:
        value = request_body.parse_json(item, "the line") if isinstance(item, bytes) else item
        submission = read_submission(value, BatchSubmission)
        caller.check_submission(submission.type, submission.payload, submission.then)
        return submission
    except Problem as problem:
        return problem
    except (SubmissionInvalid, Forbidden) as error:
        return problem_of(error)


def _submission(body: bytes) -> Submission:
    return read_submission(request_body.parse_json(body), Submission)


def _result(outcome: ItemOutcome) -> dict[str, Any]:
    match outcome:
        case ItemAccepted(job_id):
            return {"status": "accepted", "id": job_id}
        case ItemRefused(error):
            return _refused(problem_of(error))
        case ItemUnknown(job_id=job_id):
            return {"status": "unknown", "id": job_id}


def _refused(problem: Problem) -> dict[str, Any]:
    return {"status": "refused", "problem": problem.body()}
