"""Errors as clients get them: RFC 9457 problem details, one stable ``type`` for each kind."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from jobtape.producer.service.errors import (
    IdempotencyInFlight,
    IdempotencyKeyInvalid,
    IdempotencyKeyReused,
    JobFinal,
    JobGone,
    JobNotFinal,
    PayloadTooLarge,
    PointGone,
    PointNotReached,
    SubmissionInvalid,
    SubmissionNotKept,
    TooBusy,
    ViewBehind,
)
from jobtape.schemas import plainjson
from jobtape.schemas.errors import (
    BrokerUnavailable,
    JobtapeError,
    PayloadInvalid,
    QueueFull,
    TapeMissing,
    UnknownJobType,
    ViewUnavailable,
)
from jobtape.schemas.job import JobState

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:jobtape:problem:"
RETRY_AFTER: Final = 2
"""Seconds; about as long as a broker or a projector needs to come back."""
RETRY_AFTER_FULL: Final = 5
"""Seconds; a full queue needs workers, and not a moment."""
MAX_ERRORS: Final = 20
_TEXT_LENGTH: Final = 500

KINDS: Final[dict[str, tuple[int, str]]] = {
    "not-json": (400, "The body is not JSON"),
    "invalid-last-event-id": (400, "This is no event's id"),
    "unauthorized": (401, "An API key is needed"),
    "not-found": (404, "There is nothing here"),
    "job-not-found": (404, "There is no such job"),
    "method-not-allowed": (405, "This method is not for this path"),
    "body-too-slow": (408, "The body did not arrive in time"),
    "idempotency-in-flight": (409, "The first submission under this key has no outcome yet"),
    "job-final": (409, "The job has ended"),
    "job-not-final": (409, "The job has not ended"),
    "submission-not-kept": (409, "What was ordered is not known"),
    "job-gone": (410, "The job is not kept any more"),
    "history-gone": (410, "The history of then is no longer kept"),
    "too-large": (413, "The body is too large"),
    "payload-too-large": (413, "The payload is too large"),
    "unsupported-media-type": (415, "The body is of another type"),
    "invalid-submission": (422, "This is not a submission"),
    "invalid-payload": (422, "The payload does not fit the job type"),
    "unknown-job-type": (422, "There is no such job type"),
    "invalid-batch": (422, "This is not a batch"),
    "invalid-idempotency-key": (422, "This is not an idempotency key"),
    "idempotency-key-reused": (422, "The key stands for another submission"),
    "invalid-job-id": (422, "This is not a job id"),
    "invalid-query": (422, "The query cannot be answered"),
    "cursor-not-reached": (422, "The tape is not there yet"),
    "invalid-redrive": (422, "This does not say which jobs to redrive"),
    "internal": (500, "Something went wrong here"),
    "broker-unavailable": (503, "The broker does not confirm"),
    "queue-full": (503, "The queue is full"),
    "tape-missing": (503, "The tape is missing"),
    "view-unavailable": (503, "The view does not answer"),
    "view-behind": (503, "The view has not caught up"),
    "busy": (503, "Too many requests are waiting, or listening"),
    "not-running": (503, "Jobtape is not running here"),
}
"""The last part of ``type`` -> status and title."""


class Fault(BaseModel):
    """One thing that is wrong with the request."""

    pointer: str = Field(description="JSON Pointer (RFC 6901) into the body, or the query parameter's name.")
    detail: str


class ProblemDetails(BaseModel):
    """RFC 9457; ``detail`` says what to do next."""

    type: str = Field(examples=[f"{URN}unknown-job-type"])
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = Field(None, description="What is wrong with the request, fault by fault.")
    state: JobState | None = Field(None, description="The job's (`job-final`, `job-not-final`).")


class Problem(Exception):
    """Raised anywhere below a route to end the request with this problem."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Iterable[tuple[str, str]] = (),
        headers: dict[str, str] | None = None,
        state: JobState | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status, self.title = KINDS[kind]
        self.detail = detail
        self.errors = [(pointer, text) for pointer, text in errors][:MAX_ERRORS]
        self.headers = dict(headers or {})
        self.state = state
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER))

    def body(self) -> dict[str, Any]:
        """The JSON object; whatever a client sent that cannot be carried is replaced in it."""
        body: dict[str, Any] = {
            "type": URN + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": _shown(self.detail),
        }
        if self.state is not None:
            body["state"] = self.state
        if self.errors:
            body["errors"] = [{"pointer": _shown(place), "detail": _shown(text)} for place, text in self.errors]
        return body

    def response(self) -> Response:
        """The whole answer."""
        return Response(to_json(self.body()), self.status, self.headers, MEDIA_TYPE)


def pointer(loc: Sequence[str | int], base: str = "") -> str:
    """The JSON Pointer of pydantic's path."""
    return base + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in loc)


def problem_of(error: JobtapeError) -> Problem:
    """Return the problem that a client gets for one of our errors."""
    detail = str(error)
    match error:
        case UnknownJobType():
            return Problem("unknown-job-type", f"{detail}. See GET /job-types", errors=[("/type", detail)])
        case PayloadInvalid():
            faults = [(pointer(fault["loc"], "/payload"), fault["msg"]) for fault in error.errors[:MAX_ERRORS]]
            return Problem("invalid-payload", f"{detail}. GET /job-types shows its JSON Schema", errors=faults)
        case SubmissionInvalid():
            faults = [(pointer(fault["loc"]), fault["msg"]) for fault in error.errors[:MAX_ERRORS]]
            return Problem("invalid-submission", detail, errors=faults)
        case PayloadTooLarge():
            return Problem("payload-too-large", detail, errors=[("/payload", detail)])
        case IdempotencyKeyInvalid():
            return Problem("invalid-idempotency-key", detail)
        case IdempotencyKeyReused():
            return Problem("idempotency-key-reused", detail)
        case IdempotencyInFlight():
            return Problem("idempotency-in-flight", detail, headers={"Retry-After": str(error.retry_after)})
        case JobFinal():
            return Problem("job-final", detail, state=error.state)
        case JobNotFinal():
            return Problem("job-not-final", detail, state=error.state)
        case JobGone():
            return Problem("job-gone", detail)
        case SubmissionNotKept():
            return Problem("submission-not-kept", detail)
        case PointGone():
            return Problem("history-gone", detail)
        case PointNotReached():
            return Problem("cursor-not-reached", detail)
        case TapeMissing():
            return Problem("tape-missing", detail)
        case QueueFull():
            return Problem("queue-full", detail, headers={"Retry-After": str(RETRY_AFTER_FULL)})
        case BrokerUnavailable():
            return Problem("broker-unavailable", detail)
        case ViewUnavailable():
            return Problem("view-unavailable", detail)
        case ViewBehind():
            return Problem("view-behind", detail)
        case TooBusy():
            return Problem("busy", detail)
    raise TypeError(f"no problem for {error!r}") from error


def _shown(text: str) -> str:
    carried = plainjson.carried(text)
    return carried if len(carried) <= _TEXT_LENGTH else carried[:_TEXT_LENGTH] + "…"
