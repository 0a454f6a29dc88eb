"""Answers of the API, read: the JSON object of a good one, the error that a bad one stands for."""

import re
from collections.abc import Mapping
from typing import Any, Final

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
from jobtape.schemas.job import Job

_ADAPTER: Final[TypeAdapter[Job]] = TypeAdapter(Job)


def job_of(shown: Mapping[str, Any]) -> Job:
    """The job in an answer; ``cursor`` is 0 until it is known. Raises WrongAddress when it is no job."""
    try:
        return _ADAPTER.validate_python({**shown, "cursor": shown.get("cursor") or 0})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WrongAddress(
            f"the API shows a job that this version cannot read ({place}: {first['msg']}): is it another version?"
        ) from None


LONGEST_PAUSE: Final = 30.0
"""Seconds; whatever a Retry-After says."""

_KINDS: Final[dict[int, type[RequestRefused]]] = {
    400: Invalid,
    401: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}


def json_object(answer: httpx.Response, hint: str) -> dict[str, Any]:
    """The body of a good answer. Raises WrongAddress when it is none of this API's."""
    body = _json(answer)
    if not isinstance(body, dict):
        raise WrongAddress(f"{answer.url} does not answer as a Jobtape API: see {hint}")
    return body


def error_of(answer: httpx.Response, hint: str) -> ApiError:
    """What an answer that is no good one means. ``hint``: where its reader says which API is meant."""
    problem = _json(answer)
    status = answer.status_code
    if not isinstance(problem, dict) or "title" not in problem:
        kind = answer.headers.get("content-type", "nothing")
        text = f"{answer.url} answers {status} with {kind}, not as a Jobtape API: see {hint}"
        # A proxy in front has a 502, 503 and 504 of its own, while the API is restarted.
        return Unavailable(text, status, {}, retry_after(answer)) if status in (502, 503, 504) else WrongAddress(text)
    text = _text(problem)
    if status == 401:
        text = f"{text}; put the key of this API into JOBTAPE_API_KEY"
    if status == 503 or (status == 409 and "retry-after" in answer.headers):
        return Unavailable(text, status, problem, retry_after(answer))
    return _KINDS.get(status, RequestRefused)(text, status, problem)


def retry_after(answer: httpx.Response) -> float:
    """Seconds until it is worth asking again."""
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
        # The detail speaks of the first one already.
        if isinstance(fault, dict) and str(fault.get("detail")) not in text:
            text = f"{text}; {fault.get('pointer')}: {fault.get('detail')}"
    if str(problem.get("type")).endswith(":invalid-query"):
        # Which of several values it was says little: most queries have one of each.
        text = re.sub(r"\b([a-z]+)\.\d+: ", r"\1: ", text)
    return text
