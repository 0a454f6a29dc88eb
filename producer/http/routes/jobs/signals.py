"""``POST /jobs/{id}/signals/{name}``."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobtape.producer.http import openapi, request_body
from jobtape.producer.http.dependencies import JobId, RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse, job_out
from jobtape.producer.http.routes.jobs.jobs import existing
from jobtape.producer.service.submission.idempotency import HEADER, key_in_header
from jobtape.schemas.errors import faults_of, first_fault
from jobtape.schemas.events import SignalName

_EXAMPLE: Final[dict[str, Any]] = {"payload": {"by": "Ada"}}

router = APIRouter(tags=["jobs"])


class SignalIn(BaseModel):
    """A signal to a job."""

    model_config = ConfigDict(extra="forbid", strict=True)

    payload: dict[str, Any] = Field(default_factory=dict, description="What the job that waits for it gets.")


@router.post(
    "/jobs/{job_id}/signals/{name}",
    response_model=JobOut,
    summary="Send a signal to a job",
    response_description="The job has the signal.",
    responses=openapi.problems(400, 401, 404, 408, 409, 410, 413, 415, 422, 503),
    openapi_extra=openapi.body(SignalIn, example=_EXAMPLE) | openapi.headers(openapi.IDEMPOTENCY_KEY),
    dependencies=[Depends(no_query)],
)
async def send_signal(
    job_id: JobId,
    name: Annotated[str, Path(description="Letters, digits, `_`, `.` and `-`, at most 64.", examples=["approved"])],
    request: Request,
    producer: RunningProducer,
) -> Response:
    """A signal may come before the job waits for it. In each run the first signal with a name counts. 409 if another
    one came first, its time was over, or the run has ended. Send an `Idempotency-Key`: then you can repeat the request
    after a 503.
    """
    request_body.media_type(request, request_body.JSON)
    key = key_in_header(request.headers.getlist(HEADER))
    body = request_body.parse_json(await request_body.read_body(request, producer.limits.max_body))
    try:
        signal = _Named.model_validate({"name": name, "signal": body})
    except ValidationError as error:
        faults = faults_of(error)
        at = [(pointer(fault["loc"][1:]) if fault["loc"][0] == "signal" else "name", fault["msg"]) for fault in faults]
        raise Problem("invalid-signal", f"not a signal: {first_fault(faults, 'signal')}", errors=at) from None
    return PydanticJSONResponse(
        job_out(existing(await producer.signal(job_id, name, signal.signal.payload, key), job_id))
    )


class _Named(BaseModel):
    name: SignalName
    signal: SignalIn
