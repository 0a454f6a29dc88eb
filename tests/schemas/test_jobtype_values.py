"""Arguments reach the handler, and those that JSON cannot carry are refused before."""

import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from jobtape.schemas import plainjson
from jobtape.schemas.errors import PayloadInvalid, ResultInvalid
from jobtape.schemas.job_types.job_type import JobTypeSpec
from tests.schemas.strategies import plain_json, text


class Mail(BaseModel):
    to: str
    reply: str | None = Field(default=None, alias="reply-to")


class Other(BaseModel):
    more: int = 1


def typed(n: int, when: datetime, ids: set[UUID], raw: bytes = b"x", anything: Any = None) -> None: ...
def mail(mail: Mail) -> None: ...
def careless(x: int, y: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013
def ratio(x: float) -> float: ...  # type: ignore[empty-body]
def free(): ...  # type: ignore[no-untyped-def]
def fetched() -> Mail: ...  # type: ignore[empty-body]


TYPED, MAIL, CARELESS, RATIO = (JobTypeSpec(f, f.__name__) for f in (typed, mail, careless, ratio))
FREE, FETCHED = JobTypeSpec(free, "free"), JobTypeSpec(fetched, "fetched")


@given(
    n=st.integers(-(2**63), 2**63 - 1),
    when=st.datetimes(timezones=st.just(UTC)),
    ids=st.sets(st.uuids(), max_size=3),
    raw=text.map(str.encode),
    anything=plain_json,
)
def test_arguments_reach_handler(**given_values: Any) -> None:
    payload = TYPED.payload(**given_values)
    assert plainjson.fault(payload) is None
    assert TYPED.arguments(plainjson.loads(plainjson.dumps(payload))) == given_values


@given(st.dictionaries(st.sampled_from(["n", "when", "to", "x", "reply-to"]), plain_json))
def test_any_payload_is_accepted_or_refused(payload: dict[str, Any]) -> None:
    for job in (TYPED, MAIL, CARELESS, RATIO):
        try:
            job.arguments(payload)
        except PayloadInvalid as error:
            assert error.errors and {"loc", "msg", "type"} <= error.errors[0].keys()


def test_model_argument_or_its_fields_reach_handler() -> None:
    whole = Mail(to="a", **{"reply-to": "b"})
    for payload in (
        MAIL.payload(whole),
        MAIL.payload(mail=whole),
        MAIL.payload("a", "b"),
        MAIL.payload(to="a", reply="b"),
        MAIL.payload(**{"to": "a", "reply-to": "b"}),
    ):
        assert payload == {"to": "a", "reply-to": "b"}
        assert MAIL.arguments(payload) == {"mail": whole}


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((1, 2, 3), {}, "takes 2 positional arguments, not 3"),
        ((1,), {"x": 1}, "'x' is given twice"),
        ((), {}, "x"),
        ((1,), {}, "y"),  # a default that does not fit its own annotation would fail at the worker only
        ((1, 2), {"z": 3}, "z"),
        ((2**63, 1), {}, "64 bits"),
    ],
)
def test_invalid_call_is_refused(args: tuple[Any, ...], kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(PayloadInvalid, match=says):
        CARELESS.payload(*args, **kwargs)


@pytest.mark.parametrize("wrong", [(FREE,), (Mail(to="a"), 1), (Other(),)])
def test_call_with_model_takes_nothing_else(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(PayloadInvalid):
        MAIL.payload(*wrong)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_do_not_become_null(value: float) -> None:
    with pytest.raises(PayloadInvalid, match="NaN"):
        RATIO.payload(value)
    with pytest.raises(PayloadInvalid, match="NaN"):
        TYPED.payload(1, datetime(2026, 1, 1, tzinfo=UTC), set(), anything={"a": [value]})
    with pytest.raises(ResultInvalid, match="NaN"):
        RATIO.result(value)


@given(plain_json)
def test_plain_result_is_recorded_unchanged(value: Any) -> None:
    assert FREE.result(value) == value


def looped() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep() -> Any:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [{"a": [math.nan]}, b"\xff", object(), {"a": object()}, "\ud800", "\x00", 2**63, looped(), deep(), lambda: 1],
)
def test_unrecordable_result_is_refused(value: Any) -> None:
    with pytest.raises(ResultInvalid, match="the result of free cannot be recorded"):
        FREE.result(value)


def test_result_is_checked_against_annotation() -> None:
    assert RATIO.result(1) == 1.0
    assert FETCHED.result(Mail(to="a")) == {"to": "a", "reply-to": None}
    for wrong in ("no number", None, [1]):
        with pytest.raises(ResultInvalid, match="the result of ratio"):
            RATIO.result(wrong)
