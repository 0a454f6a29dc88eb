"""Errors of the clients.

JobtapeError
├── ApiError                the API could not be used
│   ├── WrongAddress        caller's fault: the URL is wrong, or something else answers there
│   ├── WrongKey            caller's fault: the text cannot be an API key
│   ├── Unreachable         no connection could be made: the request was not carried out
│   ├── NoAnswer            the connection broke before the answer: the request may have been carried out
│   ├── NotConfirmed        it is not known whether a job was accepted; submit it again under the same key
│   └── RequestRefused      the API answered with a problem (RFC 9457)
│       ├── Unauthorized    401: the API key is missing or wrong
│       ├── NotFound        404: no such job, or nothing at this path
│       ├── Conflict        409, 412: not possible in the current state of the job or schedule
│       ├── Invalid         400, 413, 415, 422: the request is wrong
│       └── Unavailable     503, or 409 with Retry-After: not possible at the moment, and not within ``patience``
├── ClientClosed            caller's fault: the client was closed before or during the call
├── ClientForked            caller's fault: the iteration began in the parent process
├── JobNotSucceeded         the job has failed or was cancelled, so it has no result
└── NotInTime               the job has not ended yet (also a TimeoutError)
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobtape.schemas.errors import JobtapeError

if TYPE_CHECKING:
    from jobtape.schemas.job import Job


class ApiError(JobtapeError):
    """The API could not be used. The message is one line that says what to do."""


class WrongAddress(ApiError):
    """The URL is wrong, or something else than a Jobtape API answers there."""


class WrongKey(ApiError):
    """The text cannot be an API key: it contains other characters than visible ASCII."""


class Unreachable(ApiError):
    """No connection could be made: the request was not carried out."""


class NoAnswer(ApiError):
    """The connection ended before the answer: it is not known whether the request was carried out."""


class NotConfirmed(ApiError):
    """It is not known whether the job was accepted.

    Submitting it again under ``idempotency_key`` is safe: it never makes a second job.
    """

    def __init__(self, text: str, idempotency_key: str) -> None:
        super().__init__(text)
        self.idempotency_key = idempotency_key


class RequestRefused(ApiError):
    """The API refused the request.

    ``kind``: the last part of the problem's type. ``errors``: one mapping for each fault, with pointer and detail.
    """

    def __init__(self, text: str, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.status = status
        self.kind = str(problem.get("type", "")).rpartition(":")[2]
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail") or self.title)
        self.errors: Sequence[Mapping[str, Any]] = [
            fault for fault in problem.get("errors") or () if isinstance(fault, Mapping)
        ]


class Unauthorized(RequestRefused):
    """The API key is missing or wrong."""


class NotFound(RequestRefused):
    """There is no such job, or nothing at this path."""


class Conflict(RequestRefused):
    """The request is not possible in the current state of the job or schedule."""


class Invalid(RequestRefused):
    """The request is wrong, and would be refused again."""


class Unavailable(RequestRefused):
    """The request is not possible at the moment; ``retry_after`` is in seconds."""

    def __init__(self, text: str, status: int, problem: Mapping[str, Any], retry_after: float) -> None:
        super().__init__(text, status, problem)
        self.retry_after = retry_after


class ClientClosed(JobtapeError):
    """The client was closed before or during the call."""

    def __init__(self) -> None:
        super().__init__("this client is closed: create another one")


class ClientForked(JobtapeError):
    """An iteration that began in the parent process cannot continue in a forked child."""

    def __init__(self) -> None:
        super().__init__(
            "this iteration began before the process was forked and continues only in the parent: start another one "
            "here, with the same client"
        )


class JobNotSucceeded(JobtapeError):
    """The job has ended without a result; ``job`` contains its state, error and reason."""

    def __init__(self, job: "Job") -> None:
        why = "" if job.error is None else f": {job.error.type}: {job.error.message}"
        super().__init__(f"job {job.id} {job.state.value}{why}")
        self.job = job


class NotInTime(JobtapeError, TimeoutError):
    """The job has not ended in time and goes on; ``job`` is its last known state."""

    def __init__(self, job: "Job", timeout: float) -> None:
        super().__init__(f"job {job.id} has not ended within {timeout:g} s, it is {job.state.value}: wait for it again")
        self.job = job
