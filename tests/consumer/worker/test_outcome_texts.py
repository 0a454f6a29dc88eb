"""Exceptions and results whose own code raises give a failure with a text."""

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic import PlainSerializer

from jobtape.consumer.handler_call import Call
from jobtape.consumer.outcome import MESSAGE_LENGTH, Failure, failure_of, outcome_of, timed_out
from jobtape.jobs import JobType
from jobtape.schemas.errors import NAME_LENGTH
from jobtape.schemas.events import Reason
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.retry import Retry, RetryPolicy
from jobtape.schemas.job import LONGEST_DELAY


class EvilText(str):
    """A str whose methods raise."""

    def __len__(self) -> int:
        raise ZeroDivisionError

    def __getitem__(self, key: Any) -> str:
        raise ZeroDivisionError


class EvilMeta(type):
    """A class whose attributes cannot be read."""

    def __getattribute__(cls, name: str) -> Any:
        raise ZeroDivisionError(name)

    def __instancecheck__(cls, instance: object) -> bool:
        raise SystemExit


def raising(error: BaseException) -> Callable[..., Any]:
    def throw(*_: object) -> Any:
        raise error

    return throw


class Silent(Exception):
    __str__ = raising(KeyboardInterrupt())
    __repr__ = raising(SystemExit())


class NotText(Exception):
    __str__ = lambda self: 7  # type: ignore[assignment,return-value]  # noqa: E731


class TextOfItsOwn(Exception):
    def __str__(self) -> str:
        return EvilText("text")


class Disguised(Exception):
    """Its attributes cannot be read."""

    __traceback__ = property(raising(ZeroDivisionError()))
    __cause__ = property(raising(ZeroDivisionError()))
    __notes__ = property(raising(ZeroDivisionError()))


class OfEvilClass(Exception, metaclass=EvilMeta):
    """Its class's attributes cannot be read."""


ENDLESS = type("x" * 10_000, (Exception,), {"__str__": lambda self: "y" * 10_000})
DEEP = ValueError("deep")
DEEP.__cause__ = DEEP


# Functions, because pytest reads the class of each parameter.
EXCEPTIONS: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "silent": (Silent, "Silent", "(its text could not be made: KeyboardInterrupt)"),
    "no text": (NotText, "NotText", "(its text could not be made: TypeError)"),
    "text of its own": (TextOfItsOwn, "TextOfItsOwn", "text"),
    "disguised": (lambda: Disguised("words"), "Disguised", "words"),
    "of an evil class": (lambda: OfEvilClass("words"), "OfEvilClass", "words"),
    "endless": (ENDLESS, "x" * (NAME_LENGTH - 1) + "…", "y" * (MESSAGE_LENGTH - 1) + "…"),
    "its own cause": (lambda: DEEP, "ValueError", "deep"),
    "surrogate": (lambda: ValueError("\udfff\x00"), "ValueError", "\ufffd\ufffd"),
    "group": (lambda: ExceptionGroup("several", [Silent()]), "ExceptionGroup", "several (1 sub-exception)"),
}


@pytest.mark.parametrize("which", EXCEPTIONS)
def test_failure_of_any_exception_has_text(which: str) -> None:
    make, name, message = EXCEPTIONS[which]
    try:
        raise make()
    except BaseException as raised:  # noqa: BLE001 - as ``Call.run`` does
        outcome = failure_of(raised, RetryPolicy())
    assert (outcome.reason, outcome.error.type, outcome.error.message) == ("error", name, message)
    assert outcome.retry_after == "policy"
    assert outcome.error.traceback


def test_cancelled_error_without_message_gets_one() -> None:
    assert "cancelled its own task" in failure_of(asyncio.CancelledError(), RetryPolicy()).error.message
    assert failure_of(asyncio.CancelledError("mine"), RetryPolicy()).error.message == "mine"


def _retry(delay: Any) -> Retry:
    error = Retry()
    error.delay = delay
    return error


class Unfinished(Retry):
    def __init__(self) -> None:
        """Do not set what ``Retry`` sets."""


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (_retry(5), 5.0),
        (_retry(float("nan")), "policy"),
        (_retry(-3), 0.0),
        (_retry(1e300), LONGEST_DELAY),
        (_retry("soon"), "never"),
        (_retry("policy"), "policy"),
        (Unfinished(), "policy"),
    ],
)
def test_retry_delay_is_limited_to_valid_values(error: Retry, retry_after: Any) -> None:
    assert failure_of(error, RetryPolicy(max_attempts=3)).retry_after == retry_after


def test_retry_policy_runs_no_code_of_classes() -> None:
    """A timeout is compared on the loop that has the connection."""
    policy = RetryPolicy(max_attempts=3, on=(OfEvilClass, KeyError))
    assert [failure_of(each, policy).retry_after for each in (OfEvilClass(), ValueError(), KeyError())] == [
        *("policy", "never", "policy"),
    ]

    def handler() -> None: ...

    outcome = timed_out(JobType(handler, "h", retry=policy), 1.0)
    assert (outcome.retry_after, outcome.error.message) == ("never", "the handler of h did not end within 1 s")


class Classless(Exception):
    """Its ``__class__`` cannot be read."""

    __class__ = property(raising(ZeroDivisionError()))


def test_exception_that_cannot_be_compared_is_not_retried() -> None:
    def handler() -> None:
        raise Classless("bang")

    context = Context("id", "h", 1, 1, logging.getLogger("test"), lambda _: None)
    outcome = Call(JobType(handler, "h", retry=RetryPolicy(max_attempts=3)), {}, None, context, 1000).run()
    assert isinstance(outcome, Failure)
    assert outcome.retry_after == "never"
    assert "raised ZeroDivisionError" in outcome.error.message and "bang" in outcome.error.message


class EvilPolicy(RetryPolicy):
    retry_after = raising(SystemExit())


def test_failing_policy_means_no_retry() -> None:
    outcome = failure_of(ValueError("bang"), EvilPolicy(max_attempts=3))
    assert outcome.retry_after == "never"
    assert "raised SystemExit" in outcome.error.message and "bang" in outcome.error.message


class Unprintable:
    __repr__ = raising(SystemExit())
    __str__ = raising(asyncio.CancelledError())
    __iter__ = raising(KeyboardInterrupt())


def _serialised(error: BaseException) -> Any:
    def throw(value: Any) -> Any:
        raise error

    return Annotated[Any, PlainSerializer(throw)]


@pytest.mark.parametrize(
    "annotation",
    [
        *map(_serialised, (ValueError("v"), ZeroDivisionError(), KeyError("k"), TimeoutError(), StopIteration())),
        *map(_serialised, (SystemExit(2), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit())),
        *map(_serialised, (RecursionError(), Silent())),
        int,
        list[int],
    ],
)
def test_result_whose_code_raises_is_invalid(annotation: Any) -> None:
    def handler() -> None: ...

    handler.__annotations__["return"] = annotation
    outcome = outcome_of(JobType(handler, "h"), Unprintable(), 1000)
    reason: Reason = "result_invalid"
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.error.type) == (reason, "ResultInvalid")
    assert "the result of h cannot be recorded" in outcome.error.message
