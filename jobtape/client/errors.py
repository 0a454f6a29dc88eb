"""What may go wrong between a client and the API.

JobtapeError
├── ApiError                the API could not be used
│   ├── WrongAddress        the caller's fault: no address of an API, or something else answers there
│   ├── WrongKey            the caller's fault: a key that no API can have
│   ├── Unreachable         nobody answers: nothing was done
│   ├── NoAnswer            the question may have arrived, the answer did not: what was asked for may have been done
│   ├── NotConfirmed        the same of a submission; submitting again under its key is safe
│   └── Refused             the API answers with a problem (RFC 9457)
│       ├── Unauthorized    401: it wants another key
│       ├── NotFound        404: there is no such job, or nothing at this path
│       ├── Conflict        409: not in the state that the job is in
│       ├── Invalid         400, 413, 415, 422: the request itself is wrong
│       └── Unavailable     409 and 503 with Retry-After: not just now, and not within the client's patience
├── ClientClosed            the caller's fault: the client was closed before, or meanwhile
├── ClientForked            the caller's fault: begun in the process that this one was forked from
├── JobNotSucceeded         the job's own fault: it has failed, or was cancelled, and has no result
└── NotInTime               the job has not ended yet (also a TimeoutError)
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobtape.schemas.errors import JobtapeError

if TYPE_CHECKING:
    from jobtape.schemas.job import Job


class ApiError(JobtapeError):
    """The API could not be used; the text is one line that says what to do."""


class WrongAddress(ApiError):
    """This is no address of an API."""


class WrongKey(ApiError):
    """This can be no API key: it has other than visible ASCII characters."""


class Unreachable(ApiError):
    """No connection could be made: nothing was done."""


class NoAnswer(ApiError):
    """The connection ended before the answer came: whether it was done is not known."""


class NotConfirmed(ApiError):
    """It is not known whether the job was accepted. The same submission under ``idempotency_key`` makes it one job."""

    def __init__(self, text: str, idempotency_key: str) -> None:
        super().__init__(text)
        self.idempotency_key = idempotency_key


class RequestRefused(ApiError):
    """The API's own words. ``kind``: the last part of the problem's type; ``errors``: each with pointer and detail."""

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
    """Without the API's key."""


class NotFound(RequestRefused):
    """There is no such job, or nothing at this path."""


class Conflict(RequestRefused):
    """Not in the state that the job is in."""


class Invalid(RequestRefused):
    """The request is wrong: the same request will be refused again."""


class Unavailable(RequestRefused):
    """Not just now; ``retry_after`` is in seconds."""

    def __init__(self, text: str, status: int, problem: Mapping[str, Any], retry_after: float) -> None:
        super().__init__(text, status, problem)
        self.retry_after = retry_after


class ClientClosed(JobtapeError):
    """The client was closed: what was still asked for has no answer."""

    def __init__(self) -> None:
        super().__init__("this client is closed: make another one")


class ClientForked(JobtapeError):
    """An iteration that was begun in the process that this one was forked from cannot go on here."""

    def __init__(self) -> None:
        super().__init__(
            "this iteration was begun before the process was forked, and goes on in the parent alone: begin another "
            "one here, with the same client"
        )


class JobNotSucceeded(JobtapeError):
    """The job has ended without a result: ``job`` says how, with its error and reason."""

    def __init__(self, job: "Job") -> None:
        why = "" if job.error is None else f": {job.error.type}: {job.error.message}"
        super().__init__(f"job {job.id} {job.state.value}{why}")
        self.job = job


class NotInTime(JobtapeError, TimeoutError):
    """The job has not ended within the time given, and goes on; ``job`` is as it was last seen."""

    def __init__(self, job: "Job", timeout: float) -> None:
        super().__init__(f"job {job.id} has not ended within {timeout:g} s, it is {job.state.value}: wait for it again")
        self.job = job
