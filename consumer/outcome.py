"""The outcome of one execution, limited so that it always fits into an event.

Results and exceptions have user code of their own: an exception's ``__str__``, its attributes and its class may raise
anything. There is a failure with a text in any case. What is kept of results and exceptions is plain data, so no user
code runs where it is read.
"""

import asyncio
import math
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from jobtape.schemas import plainjson
from jobtape.schemas.errors import ResultInvalid, class_name, text_of
from jobtape.schemas.events import Reason
from jobtape.schemas.execution.retry import NEVER, POLICY, Crashed, RetryAfter, RetryPolicy
from jobtape.schemas.flows.follow_ups import FollowUps
from jobtape.schemas.job import LONGEST_DELAY, ErrorInfo
from jobtape.schemas.job_types.job_type import JobTypeSpec

MESSAGE_LENGTH: Final = 2_000
"""Characters of an exception's text that an event contains."""
TRACEBACK_LENGTH: Final = 8_000
"""Characters of a traceback that an event contains."""
CANCELLED: Final = (
    "the handler ended with CancelledError although nobody had cancelled the job: it cancelled its own task, or "
    "awaited one that was cancelled; catch the error where that is intended"
)
"""The message of a CancelledError that has none."""
_OUR_CODE: Final = str(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class Success:
    """The handler returned ``result`` (plain JSON)."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """There is no result. ``retry_after`` says whether and when another attempt follows."""

    reason: Reason
    error: ErrorInfo
    retry_after: RetryAfter = NEVER


@dataclass(frozen=True, slots=True)
class NamedFollowUps:
    """The handler named the jobs that follow: ``body`` is that of ``FollowUps``."""

    body: dict[str, Any]


Outcome = Success | Failure | NamedFollowUps


def failure(reason: Reason, kind: str, message: str, retry_after: RetryAfter = NEVER) -> Failure:
    """Return a failure that is not an exception of the handler."""
    return Failure(reason, ErrorInfo(type=kind, message=_shortened(message, MESSAGE_LENGTH)), retry_after)


def outcome_of(job_type: JobTypeSpec, value: Any, max_result: int) -> Outcome:
    """Return the outcome of a handler that returned ``value``.

    It is a Failure when ``value`` does not fit the job type or has more than ``max_result`` bytes of JSON. Raises what
    the value's own code raises while it is converted to JSON.
    """
    if type(value) is FollowUps:
        return NamedFollowUps(value.body)
    try:
        result = job_type.result_to_record(value)
        size = len(plainjson.dumps(result))
    except ResultInvalid as error:
        return failure("result_invalid", "ResultInvalid", str(error))
    if size > max_result:
        return failure(
            "result_too_large",
            "ResultTooLarge",
            f"the result has {size} bytes of JSON, {max_result} are allowed: store it elsewhere and return "
            "a reference, or raise JOBTAPE_MAX_RESULT",
        )
    return Success(result)


def timed_out(job_type: JobTypeSpec, timeout: float) -> Failure:
    """Return the failure of a handler that ran longer than ``timeout`` seconds."""
    message = f"the handler of {job_type.name} did not end within {timeout:g} s"
    return _failure("timeout", "TimeoutError", message, TimeoutError(message), job_type.retry)


def crashed(job_type: JobTypeSpec, how: str) -> Failure:
    """Return the failure of a handler whose process ended; ``how`` says how it ended."""
    message = f"the process in which the handler of {job_type.name} ran {how}"
    return _failure("crashed", "Crashed", message, Crashed(message), job_type.retry)


def failure_of(error: BaseException, policy: RetryPolicy) -> Failure:
    """Return the failure of a handler that raised ``error``. Our own frames at the top of the traceback are removed."""
    trace = _handler_frames(vars(BaseException)["__traceback__"].__get__(error))
    kind = type(error)
    message = text_of(lambda: str(error)) or (CANCELLED if issubclass(kind, asyncio.CancelledError) else "")
    text = text_of(
        lambda: "".join(traceback.format_exception(kind, error, trace)), lambda: "".join(traceback.format_tb(trace))
    )
    # The end is the useful part: it shows where the exception was raised.
    text = text if len(text) <= TRACEBACK_LENGTH else f"…{text[-TRACEBACK_LENGTH:]}"
    return _failure("error", class_name(error), message, error, policy, text)


def _failure(
    reason: Reason, kind: str, message: str, error: BaseException, policy: RetryPolicy, trace: str | None = None
) -> Failure:
    try:
        retry_after = _checked(policy.retry_after(error))
    except BaseException as broken:  # noqa: BLE001 - comparing with RetryPolicy.on runs user code
        retry_after = NEVER
        why = f"RetryPolicy.on or Retry.delay raised {class_name(broken)} when asked"
        message = f"(no further attempt, since {why}) {message}"
    return Failure(
        reason, ErrorInfo(type=kind, message=_shortened(message, MESSAGE_LENGTH), traceback=trace), retry_after
    )


def _checked(retry_after: Any) -> RetryAfter:
    """Return a valid value, whatever a handler assigned to ``Retry.delay``."""
    if type(retry_after) is str and retry_after in (NEVER, POLICY):
        return NEVER if retry_after == NEVER else POLICY
    return min(max(float(retry_after), 0.0), LONGEST_DELAY) if math.isfinite(retry_after) else POLICY


def _handler_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from its first frame that is not ours; the whole one when all frames are ours."""
    first = trace
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OUR_CODE):
        first = first.tb_next
    return first or trace


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
