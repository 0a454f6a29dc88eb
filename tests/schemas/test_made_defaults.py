"""Computed defaults are computed once, when the payload is accepted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, field_validator, model_validator

from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.job_types.job_type import JobTypeSpec


def now() -> datetime:
    return datetime.now(UTC)


def parameters(
    x: int,
    key: UUID = Field(default_factory=uuid4),  # noqa: B008
    made: datetime = Field(default_factory=now),  # noqa: B008
) -> None: ...


class Order(BaseModel):
    article: str = "pen"
    key: UUID = Field(default_factory=uuid4, alias="Key")
    pieces: list[int] = Field(default_factory=list)


class Orders(BaseModel):
    orders: list[Order]
    first: Order = Field(default_factory=Order)


@dataclass
class Plain:
    n: int = 0
    key: str = field(default_factory=lambda: str(uuid4()))


class Validated(BaseModel):
    key: str = Field("", validate_default=True)

    @field_validator("key", mode="before")
    @classmethod
    def _made(cls, value: str) -> str:
        return value or str(uuid4())


class Completed(BaseModel):
    n: int = 0
    key: UUID | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Completed":
        self.key = self.key or uuid4()
        return self


class After(BaseModel):
    key: UUID | None = None

    def model_post_init(self, context: Any) -> None:
        self.key = self.key or uuid4()


def model(order: Order) -> None: ...
def nested(orders: Orders) -> None: ...
def dataclass_(x: Plain) -> None: ...
def listed(x: list[Plain]) -> None: ...
def validated(x: Validated) -> None: ...
def completed(x: Completed) -> None: ...
def after(x: After, y: int = 0) -> None: ...
def optional(key: Annotated[str, BeforeValidator(lambda value: value or str(uuid4()))] = "") -> None: ...


@pytest.mark.parametrize(
    ("handler", "payload"),
    [
        (parameters, {"x": 1}),
        (model, {"article": "pen"}),
        (nested, {"orders": [{"article": "a"}, {}]}),
        (dataclass_, {"x": {"n": 1}}),
        (listed, {"x": [{}, {"n": 1}]}),
        (validated, {}),
        (completed, {"n": 1}),
        (after, {"x": {}}),
        (optional, {}),
    ],
)
def test_accepted_payload_has_computed_defaults(handler: Callable[..., None], payload: dict[str, Any]) -> None:
    job = JobTypeSpec(handler, "made")
    assert job.arguments(payload) != job.arguments(payload), "this is what differs in each attempt"
    accepted = job.accept(payload)
    assert job.arguments(accepted) == job.arguments(accepted)
    assert job.accept(accepted) == accepted, "accepting it again changes nothing"
    assert accepted != job.accept(payload)


def test_given_value_is_kept() -> None:
    key = str(uuid4())
    assert JobTypeSpec(model, "made").accept({"Key": key}) == {"article": "pen", "Key": key, "pieces": []}


@pytest.mark.parametrize("payload", [{"n": 1}, {}])
def test_payload_without_computed_defaults_is_unchanged(payload: dict[str, Any]) -> None:
    def plain(n: int = 0, items: list[int] = Field(default_factory=list)) -> None: ...  # noqa: B008

    assert JobTypeSpec(plain, "plain").accept(payload) is payload


def test_validator_that_is_not_idempotent_leaves_payload_unchanged() -> None:
    def doubled(n: Annotated[int, AfterValidator(lambda value: 2 * value)]) -> None: ...

    job = JobTypeSpec(doubled, "doubled")
    assert job.accept({"n": 1}) == {"n": 1}
    assert job.arguments({"n": 1}) == {"n": 2}


def test_unrecordable_default_is_refused() -> None:
    counter = count()

    def counted(n: Annotated[int, AfterValidator(lambda value: value + next(counter) + 1)]) -> None: ...

    with pytest.raises(PayloadInvalid, match="another int"):
        JobTypeSpec(counted, "counted").accept({"n": 1})


def test_payload_to_send_leaves_defaults_to_api() -> None:
    job = JobTypeSpec(parameters, "made")
    assert job.payload(x=1).keys() == {"x", "key", "made"}
    assert job.payload_to_send(x=1) == {"x": 1}
    key = uuid4()
    assert job.payload_to_send(x=1, key=key) == {"x": 1, "key": str(key)}
    order = Order()
    assert JobTypeSpec(model, "made").payload_to_send(order)["Key"] == str(order.key), "it has been seen already"
    assert JobTypeSpec(model, "made").payload_to_send("pen") == {"article": "pen", "pieces": []}
