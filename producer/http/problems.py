"""Error responses: RFC 9457 problem details with one stable ``type`` for each kind of error."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from jobtape.producer.service import errors as service
from jobtape.schemas import access, errors, plainjson
from jobtape.schemas.job import JobState
from jobtape.schemas.job_types.secrets import SecretKeysWrong
from jobtape.webhooks.secrets import WebhookKeyMissing

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:jobtape:problem:"
RETRY_AFTER: Final = 2
"""Seconds. A broker or a projector needs about that long to recover."""
RETRY_AFTER_FULL: Final = 5
"""Seconds. Longer than ``RETRY_AFTER``, because workers have to empty the queue first."""
MAX_ERRORS: Final = 20
_TEXT_LENGTH: Final = 500

KINDS: Final[dict[str, tuple[int, str]]] = {
    "not-json": (400, "The body is not JSON"),
    "invalid-last-event-id": (400, "The last event id is not valid"),
    "unauthorized": (401, "The API key is missing or wrong"),
    "forbidden": (403, "The API key does not allow this"),
    "not-found": (404, "There is no such resource"),
    "job-not-found": (404, "There is no such job"),
    "method-not-allowed": (405, "This path does not support this method"),
    "body-too-slow": (408, "The body did not arrive in time"),
    "idempotency-in-flight": (409, "The first submission with this key is still in progress"),
    "job-final": (409, "The job has ended"),
    "job-not-final": (409, "The job has not ended"),
    "signal-taken": (409, "The job does not take this signal"),
    "submission-not-kept": (409, "The submission of the job is not stored"),
    "job-gone": (410, "The job was deleted"),
    "history-gone": (410, "The history of that time was deleted"),
    "too-large": (413, "The body is too large"),
    "payload-too-large": (413, "The payload is too large"),
    "unsupported-media-type": (415, "The type of the body is not supported"),
    "invalid-submission": (422, "The submission is not valid"),
    "invalid-payload": (422, "The payload is not valid for the job type"),
    "unknown-job-type": (422, "There is no such job type"),
    "invalid-batch": (422, "The batch is not valid"),
    "invalid-idempotency-key": (422, "The idempotency key is not valid"),
    "idempotency-key-reused": (422, "The idempotency key belongs to another submission"),
    "invalid-job-id": (422, "The job id is not valid"),
    "invalid-query": (422, "The query is not valid"),
    "cursor-not-reached": (422, "The tape has not reached this cursor"),
    "invalid-filter": (422, "The filter for jobs is not valid"),
    "invalid-limit": (422, "The limit is not valid"),
    "invalid-schedule": (422, "The schedule is not valid"),
    "invalid-signal": (422, "The signal is not valid"),
    "invalid-flow": (422, "The flow is not valid"),
    "not-a-flow": (409, "The job is no flow"),
    "schedule-changed": (412, "The schedule has changed"),
    "schedule-not-found": (404, "There is no such schedule"),
    "webhook-not-found": (404, "There is no such webhook"),
    "key-not-found": (404, "There is no such API key"),
    "keys-not-required": (409, "The API needs no key"),
    "invalid-key": (422, "The API key is not valid"),
    "too-many-requests": (429, "The API key has sent too many requests"),
    "webhook-disabled": (409, "The webhook is disabled"),
    "invalid-webhook": (422, "The webhook is not valid"),
    "secrets-not-configured": (501, "The installation has no key for secrets"),
    "webhooks-not-configured": (501, "The installation has no key for webhooks"),
    "internal": (500, "Internal error"),
    "broker-unavailable": (503, "The broker is not available"),
    "queue-full": (503, "The queue is full"),
    "tape-missing": (503, "The tape is missing"),
    "view-unavailable": (503, "The view is not available"),
    "view-behind": (503, "The view has not caught up"),
    "busy": (503, "Too many requests are waiting or streaming"),
    "not-running": (503, "Jobtape is not running in this process"),
}
"""The last part of ``type``, mapped to status and title."""


class Fault(BaseModel):
    """One thing that is wrong with the request."""

    pointer: str = Field(description="JSON Pointer (RFC 6901) into the body, or the name of the query parameter.")
    detail: str


class ProblemDetails(BaseModel):
    """A problem (RFC 9457). ``detail`` says what is wrong and what to do next."""

    type: str = Field(examples=[f"{URN}unknown-job-type"])
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = Field(None, description="Each fault of the request.")
    state: JobState | None = Field(None, description="The state of the job (only for `job-final` and `job-not-final`).")


class Problem(Exception):
    """An exception that ends the request with this problem as the response."""

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
        self.errors = list(errors)[:MAX_ERRORS]
        self.headers = dict(headers or {})
        self.state = state
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER))

    def body(self) -> dict[str, Any]:
        """Return the JSON object. Characters that JSON cannot carry are replaced."""
        details = ProblemDetails(
            type=URN + self.kind,
            title=self.title,
            status=self.status,
            detail=_shown(self.detail),
            errors=[Fault(pointer=_shown(where), detail=_shown(text)) for where, text in self.errors] or None,
            state=self.state,
        )
        return details.model_dump(exclude_none=True)

    def response(self) -> Response:
        return Response(to_json(self.body()), self.status, self.headers, MEDIA_TYPE)


def pointer(loc: Sequence[str | int], base: str = "") -> str:
    """Return ``loc``, a path of pydantic, as a JSON Pointer below ``base``."""
    return base + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in loc)


_KINDS_OF_ERRORS: Final[dict[type[errors.JobtapeError], str]] = {
    service.IdempotencyKeyInvalid: "invalid-idempotency-key",
    service.IdempotencyKeyReused: "idempotency-key-reused",
    access.Forbidden: "forbidden",
    service.KeyMissing: "key-not-found",
    service.JobFinal: "job-final",
    service.JobNotFinal: "job-not-final",
    service.JobGone: "job-gone",
    service.ScheduleChanged: "schedule-changed",
    service.SignalTaken: "signal-taken",
    service.SubmissionNotKept: "submission-not-kept",
    service.WebhookMissing: "webhook-not-found",
    service.WebhookDisabled: "webhook-disabled",
    SecretKeysWrong: "secrets-not-configured",
    WebhookKeyMissing: "webhooks-not-configured",
    service.PointGone: "history-gone",
    service.PointNotReached: "cursor-not-reached",
    errors.TapeMissing: "tape-missing",
    errors.BrokerUnavailable: "broker-unavailable",
    errors.ViewUnavailable: "view-unavailable",
    service.ViewBehind: "view-behind",
    service.TooBusy: "busy",
}
"""The errors whose problem consists of their text, and the state of the job if they have it."""


def problem_of(error: errors.JobtapeError) -> Problem:
    """Return the problem that a client gets for ``error``. Raises TypeError when there is none."""
    detail = str(error)
    match error:
        case errors.UnknownJobType():
            return Problem("unknown-job-type", f"{detail}. See GET /job-types", errors=[("/type", detail)])
        case errors.PayloadInvalid():
            faults = [(pointer(fault["loc"], "/payload"), fault["msg"]) for fault in error.errors[:MAX_ERRORS]]
            return Problem("invalid-payload", f"{detail}. GET /job-types shows its JSON Schema", errors=faults)
        case errors.SubmissionInvalid():
            faults = [(pointer(fault["loc"]), fault["msg"]) for fault in error.errors[:MAX_ERRORS]]
            return Problem("invalid-submission", detail, errors=faults)
        case service.WebhookInvalid():
            return Problem("invalid-webhook", f"{error.field}: {detail}", errors=[(f"/{error.field}", detail)])
        case service.KeyInvalid():
            return Problem("invalid-key", f"{error.field}: {detail}", errors=[(f"/{error.field}", detail)])
        case service.KeyRefused():
            return Problem("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="jobtape"'})
        case service.TooManyRequests():
            return Problem("too-many-requests", detail, headers={"Retry-After": str(error.retry_after)})
        case service.PayloadTooLarge():
            return Problem("payload-too-large", detail, errors=[("/payload", detail)])
        case service.IdempotencyInFlight():
            return Problem("idempotency-in-flight", detail, headers={"Retry-After": str(error.retry_after)})
        case errors.QueueFull():
            return Problem("queue-full", detail, headers={"Retry-After": str(RETRY_AFTER_FULL)})
    for cls, kind in _KINDS_OF_ERRORS.items():
        if isinstance(error, cls):
            return Problem(kind, detail, state=getattr(error, "state", None))
    raise TypeError(f"no problem for {error!r}") from error


def _shown(text: str) -> str:
    storable = plainjson.storable(text)
    return storable if len(storable) <= _TEXT_LENGTH else storable[:_TEXT_LENGTH] + "…"
