"""Reads answers of the API: a JSON object or a job from a successful one, an error from any other."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import httpx
from pydantic import TypeAdapter, ValidationError

from jobtape.client.errors import (
    ApiError,
    Conflict,
    Invalid,
    NotFound,
    RequestRefused,
    Unauthorized,
    Unavailable,
    WrongAddress,
)
from jobtape.schemas.errors import faults_of, first_fault
from jobtape.schemas.job import Job

LONGEST_PAUSE: Final = 30.0
"""Seconds: the longest pause, even if Retry-After asks for more."""

_JOB: Final[TypeAdapter[Job]] = TypeAdapter(Job)

_KINDS: Final[dict[int, type[RequestRefused]]] = {
    400: Invalid,
    401: Unauthorized,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}


class Answer(NamedTuple):
    """A successful answer: the JSON object in it (empty for 304), and its headers."""

    content: dict[str, Any]
    headers: httpx.Headers


def read_answer(answer: httpx.Response, hint: str) -> Answer:
    """Read an answer. Raises the ApiError that an unsuccessful one stands for, and WrongAddress for one without JSON.

    ``hint``: how messages name the setting that holds the API's URL.
    """
    if answer.status_code == httpx.codes.NOT_MODIFIED:
        return Answer({}, answer.headers)
    if not answer.is_success:
        raise error_of(answer, hint)
    content = _json(answer)
    if not isinstance(content, dict):
        raise WrongAddress(f"{answer.url} does not answer as a Jobtape API: check {hint}")
    return Answer(content, answer.headers)


def job_of(shown: Mapping[str, Any]) -> Job:
    """Read a job from an answer; ``cursor`` is 0 while it is not known. Raises WrongAddress when it is not a job."""
    try:
        return _JOB.validate_python({**shown, "cursor": shown.get("cursor") or 0})
    except ValidationError as error:
        raise WrongAddress(
            f"the API returned a job that this client cannot read ({first_fault(faults_of(error))}): install the API's "
            "version of Jobtape here"
        ) from None


def error_of(answer: httpx.Response, hint: str) -> ApiError:
    """Return the error that an unsuccessful answer stands for; ``hint`` as in ``read_answer``."""
    problem = _json(answer)
    status = answer.status_code
    if not isinstance(problem, dict) or "title" not in problem:
        kind = answer.headers.get("content-type", "nothing")
        text = f"{answer.url} answers {status} with {kind}, not as a Jobtape API: check {hint}"
        # A proxy in front of the API answers 502, 503 or 504 by itself while the API restarts.
        return Unavailable(text, status, {}, retry_after(answer)) if status in (502, 503, 504) else WrongAddress(text)
    text = _text(problem)
    if status == 401:
        text = f"{text}; put the key of this API into JOBTAPE_API_KEY"
    if status == 503 or (status == 409 and "retry-after" in answer.headers):
        return Unavailable(text, status, problem, retry_after(answer))
    return _KINDS.get(status, RequestRefused)(text, status, problem)


def retry_after(answer: httpx.Response) -> float:
    """Return the seconds to wait before a retry, as Retry-After says."""
    try:
        return min(max(float(answer.headers.get("retry-after", "1")), 0.1), LONGEST_PAUSE)
    except ValueError:
        return 1.0


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _text(problem: dict[str, Any]) -> str:
    text = str(problem.get("detail") or problem["title"])
    for fault in problem.get("errors") or ():
        # The detail already contains the first fault.
        if isinstance(fault, dict) and str(fault.get("detail")) not in text:
            text = f"{text}; {fault.get('pointer')}: {fault.get('detail')}"
    if str(problem.get("type")).endswith(":invalid-query"):
        # The index of the value is of little use: most queries have one value of each name.
        text = re.sub(r"\b([a-z]+)\.\d+: ", r"\1: ", text)
    return text
