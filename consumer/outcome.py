"""What became of one execution, bounded so that it always fits into an event."""

import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from jobtape.schemas import plainjson
from jobtape.schemas.errors import ResultInvalid
from jobtape.schemas.events import Reason
from jobtape.schemas.job import ErrorInfo
from jobtape.schemas.jobtype import JobType
from jobtape.schemas.retry import NEVER, Crashed, RetryPolicy, Wish

MESSAGE_LENGTH: Final = 2_000
TRACEBACK_LENGTH: Final = 8_000


@dataclass(frozen=True, slots=True)
class Success:
    """The handler returned ``result`` (plain JSON)."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """There is no result, and why; ``wish``: what that means for another attempt."""

    reason: Reason
    error: ErrorInfo
    wish: Wish = NEVER


Outcome = Success | Failure


def failure(reason: Reason, kind: str, message: str, wish: Wish = NEVER) -> Failure:
    """A failure that is not an exception of the handler."""
    return Failure(reason, ErrorInfo(type=kind, message=_bounded(message, MESSAGE_LENGTH)), wish)


def success_of(job_type: JobType, value: Any, max_result: int) -> Outcome:
    """What a handler returned as the outcome; a Failure when it is no result, or larger than ``max_result`` bytes."""
    try:
        result = job_type.result(value)
    except ResultInvalid as error:
        return failure("result_invalid", "ResultInvalid", str(error))
    size = len(plainjson.dumps(result))
    if size > max_result:
        return failure(
            "result_too_large",
            "ResultTooLarge",
            f"the result has {size} bytes of JSON, {max_result} are allowed: store it elsewhere and return "
            "a reference, or raise JOBTAPE_MAX_RESULT",
        )
    return Success(result)


def timed_out(job_type: JobType, timeout: float) -> Failure:
    """The failure of a handler that took longer than ``timeout`` seconds."""
    message = f"the handler of {job_type.name} did not end within {timeout:g} s"
    return failure("timeout", "TimeoutError", message, job_type.retry.wish(TimeoutError(message)))


def crashed(job_type: JobType, how: str) -> Failure:
    """The failure of a handler whose process ended under it; ``how`` says how that ended."""
    message = f"the process in which the handler of {job_type.name} ran {how}"
    return failure("crashed", "Crashed", message, job_type.retry.wish(Crashed(message)))


def failure_of(error: BaseException, policy: RetryPolicy, *, skip: int) -> Failure:
    """The failure of a handler that raised. The first ``skip`` frames of the traceback are ours and left out."""
    trace: TracebackType | None = error.__traceback__
    for _ in range(skip):
        trace = trace.tb_next if trace is not None else None
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
        message = str(error)
    except BaseException as broken:  # noqa: BLE001 - an exception whose own __str__ raises
        text, message = "", f"(its text could not be made: {type(broken).__name__})"
    return Failure(
        "error",
        ErrorInfo(
            type=type(error).__qualname__,
            message=_bounded(message, MESSAGE_LENGTH),
            # The end tells more: that is where it was raised.
            traceback=text if len(text) <= TRACEBACK_LENGTH else f"…{text[-TRACEBACK_LENGTH:]}",
        ),
        _wish(policy, error),
    )


def _wish(policy: RetryPolicy, error: BaseException) -> Wish:
    try:
        return policy.wish(error)
    except BaseException:  # noqa: BLE001 - a class in ``on`` may have an __instancecheck__ of its own
        return NEVER


def _bounded(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
