"""A result of a subclass is recorded whole, and read back as the annotation says."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import (
    BaseModel,
    SecretStr,
    computed_field,
)
from typing_extensions import TypedDict

from tests.schemas.value_types import job_of_result, named


class Point2(BaseModel):
    x: int
    secret: SecretStr = SecretStr("s")


class Point3(Point2):
    y: int = 2
    inner: Point2 | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sum(self) -> int:
        return self.x + self.y


class Closed(BaseModel, extra="forbid"):
    x: int


class Closed3(Closed):
    y: int = 2


class Shape(BaseModel, abc.ABC):
    x: int

    @abc.abstractmethod
    def area(self) -> int: ...


class Square(Shape):
    def area(self) -> int:
        return self.x


@dataclass
class Base:
    n: int


@dataclass
class Sub(Base):
    secret: SecretStr


class Less(TypedDict):
    n: int


DEEP = Point3(x=1, inner=Point3(x=3))
RECORDED = {"x": 1, "secret": "s", "y": 2, "sum": 3}
DEEP_RECORDED = {**RECORDED, "inner": {"x": 3, "secret": "s", "y": 2, "inner": None, "sum": 5}}


@pytest.mark.parametrize(
    ("annotation", "value", "recorded"),
    [
        (BaseModel, DEEP, DEEP_RECORDED),
        (object, DEEP, DEEP_RECORDED),
        (Any, [DEEP, (1, {2})], [DEEP_RECORDED, [1, [2]]]),
        (Point2, DEEP, DEEP_RECORDED),
        (Point2 | None, DEEP, DEEP_RECORDED),
        (list[Point2], [Point2(x=0), DEEP], [{"x": 0, "secret": "s"}, DEEP_RECORDED]),
        (dict[str, BaseModel], {"a": DEEP}, {"a": DEEP_RECORDED}),
        (dict, {"a": DEEP}, {"a": DEEP_RECORDED}),
        (Sequence[Point2], [DEEP], [DEEP_RECORDED]),
        (Closed, Closed3(x=1), {"x": 1, "y": 2}),
        (Shape, Square(x=1), {"x": 1}),
        (list[Shape], [Square(x=1)], [{"x": 1}]),
        (Base, Sub(1, SecretStr("s")), {"n": 1, "secret": "s"}),
        (Less, {"n": 1, "more": Sub(1, SecretStr("s"))}, {"n": 1, "more": {"n": 1, "secret": "s"}}),
        (Any, datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
        (Any, {1: SecretStr("s")}, {"1": "s"}),
    ],
    ids=named,
)
def test_subclass_result_is_recorded_whole(annotation: Any, value: Any, recorded: Any) -> None:
    job = job_of_result(annotation)
    assert job.result(value) == recorded
    job.read_result(recorded)


def test_subclass_result_is_read_by_annotation() -> None:
    read = job_of_result(Point2).read_result({**RECORDED, "inner": None})
    assert (type(read), read.x, read.y) == (Point2, 1, 2)
    assert job_of_result(Closed).read_result({"x": 1, "y": 2}).y == 2
    assert job_of_result(BaseModel).read_result(RECORDED) == RECORDED
    assert job_of_result(list[Shape]).read_result([{"x": 1}]) == [{"x": 1}]
    assert job_of_result(Point2).read_result({"x": 1, "secret": "s"}) == Point2(x=1)
