"""Arguments and results that JSON would change are refused."""

from dataclasses import InitVar, dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    SecretStr,
    SerializeAsAny,
)

from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid, ResultInvalid
from tests.schemas.value_types import LOGIN, job_of, job_of_result, named


class Doubled(BaseModel):
    n: Annotated[int, AfterValidator(lambda value: 2 * value)]


class Person(BaseModel):
    name: str


class Employee(Person):
    number: int = 1


REFUSED: list[tuple[Any, Any, str]] = [
    (Doubled, Doubled(n=1), "n: another int would arrive"),
    (Person, Employee(name="a"), "an? Employee would arrive as an? Person"),
    (SerializeAsAny[Person], Employee(name="a"), "x.number"),
    (str | datetime, datetime(2026, 1, 1, tzinfo=UTC), "a datetime would arrive as a str"),
    (Any, date(2026, 1, 1), "a date would arrive as a str"),
    (Any, {1, 2}, "a set would arrive as a list"),
    (Any, SecretStr("s"), "SecretStr"),
    (dict[str, Any], {"a": LOGIN}, "x.a: a Login"),
    (dict[tuple[int, int], int], {(1, 2): 3}, "cannot be read back"),
    (float | None, float("nan"), "NaN"),
    (bytes, b"\xff", "utf-8"),
]


@pytest.mark.parametrize(("annotation", "value", "says"), REFUSED, ids=named)
def test_argument_that_would_change_is_refused(annotation: Any, value: Any, says: str) -> None:
    with pytest.raises(PayloadInvalid, match=says) as refused:
        job_of(annotation).payload(x=value)
    assert refused.value.errors
    assert "'s'" not in str(refused.value), "a value may be a secret"


def test_dataclass_that_drops_argument_is_refused() -> None:
    @dataclass
    class Forgets:
        n: InitVar[int]

    with pytest.raises(JobTypeInvalid, match="InitVar 'n'"):
        job_of(Forgets)


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (str | datetime, datetime(2026, 1, 1, tzinfo=UTC), "a datetime would arrive as a str"),
        (Doubled, Doubled(n=1), "another int"),
        (dict[tuple[int, int], int], {(1, 2): 3}, "cannot be read back"),
        (float, float("nan"), "NaN"),
        (Any, {"a": [float("inf")]}, "NaN and Infinity"),
    ],
    ids=named,
)
def test_result_that_would_change_is_refused(annotation: Any, value: Any, says: str) -> None:
    with pytest.raises(ResultInvalid, match=says):
        job_of_result(annotation).result(value)
