"""What is handed in arrives in the handler, and what it returns is read back, whatever a dump would make of it."""

import abc
import collections
import enum
import json
import pathlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import jsonschema
import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    Tag,
    computed_field,
    field_serializer,
    model_serializer,
)
from typing_extensions import TypedDict

from jobtape.schemas import plainjson
from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid, ResultInvalid
from jobtape.schemas.job_types.difference import difference
from jobtape.schemas.job_types.job_type import JobTypeSpec

T = TypeVar("T")


class Password(SecretStr):
    """A secret of an author's own."""


class Birthday(Secret[date]):
    def _display(self) -> str:
        return "****/**/**"


class Login(BaseModel):
    user: str
    password: SecretStr
    pin: Secret[int] = Secret(0)
    key: SecretBytes = SecretBytes(b"")
    own: Password = Password("")


@dataclass
class Account:
    name: str
    token: SecretStr
    login: Login | None = None


class Keys(TypedDict):
    main: SecretStr
    others: dict[str, SecretBytes]


class Box(BaseModel, Generic[T]):
    content: T


class Tree(BaseModel):
    secret: SecretStr
    children: "list[Tree]" = []


class Area(BaseModel, extra="forbid"):
    width: int
    height: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width * self.height


class Areas(BaseModel, extra="forbid"):
    areas: list[Area]
    largest: dict[str, Area] = {}


class Names(BaseModel, extra="forbid"):
    one: int = Field(alias="One")
    two: int = Field(validation_alias="TwoIn", serialization_alias="twoOut")
    three: int = Field(default=3, serialization_alias="threeOut")
    four: int = Field(validation_alias=AliasChoices("vier", AliasPath("deep", "four")))
    five: int = Field(validation_alias=AliasPath("path", 0))


class Generated(BaseModel, alias_generator=lambda name: name.upper(), populate_by_name=True):
    first_name: str


class OnlyNames(BaseModel, validate_by_alias=False, validate_by_name=True):
    name: str = Field(alias="N")


class Hidden(BaseModel):
    shown: int
    hidden: int = Field(exclude=True)
    zero: int = Field(default=1, exclude_if=lambda value: value == 0)


class Shown(BaseModel):
    when: date
    price: Annotated[float, PlainSerializer(lambda value: round(value, 1))]
    names: Annotated[
        list[str],
        BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value),
        PlainSerializer(",".join),
    ]

    @field_serializer("when")
    def _day(self, value: date) -> str:
        return value.strftime("%d.%m.%Y")


class Wrapped(BaseModel, extra="forbid"):
    n: int

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: Any) -> dict[str, Any]:
        return {**handler(self), "kind": "wrapped"}


class AsText(BaseModel):
    n: int

    @model_serializer
    def _text(self) -> str:
        return f"<{self.n}>"


class Cat(BaseModel):
    kind: Literal["cat"] = Field("cat", alias="type", serialization_alias="typeOut")
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = Field("dog", alias="type", serialization_alias="typeOut")
    age: int = 1


def kind_of(value: Any) -> str:
    return str(value.get("type", value.get("typeOut")) if isinstance(value, dict) else value.kind)


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
Called = Annotated[Annotated[Cat, Tag("cat")] | Annotated[Dog, Tag("dog")], Discriminator(kind_of)]


class Raw(BaseModel, ser_json_bytes="base64", val_json_bytes="base64"):
    data: bytes


class RawOut(BaseModel, ser_json_bytes="base64"):
    data: bytes


class Seconds(BaseModel, ser_json_timedelta="float"):
    time: timedelta


class Infinite(BaseModel, ser_json_inf_nan="strings"):
    ratio: float


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    day: date


@dataclass
class Derived:
    n: int
    extra: InitVar[int] = 0
    double: int = field(default=0, init=False)

    def __post_init__(self, extra: int) -> None:
        self.double = 2 * self.n


class Private(BaseModel):
    n: int
    _made: uuid.UUID = PrivateAttr(default_factory=uuid.uuid4)


class Open(BaseModel, extra="allow"):
    n: int


class Numbers(RootModel[list[int]]): ...


class Text(BaseModel):
    inner: Json[list[int]]


BERLIN = ZoneInfo("Europe/Berlin")
LOGIN = Login(user="a", password=SecretStr("p"), pin=Secret(7), key=SecretBytes(b"k"), own=Password("o"))
NAMED = Names.model_validate({"One": 1, "TwoIn": 2, "vier": 4, "path": [5]})

CARRIED: list[tuple[Any, Any]] = [
    (SecretStr, SecretStr("s")),
    (SecretBytes | None, SecretBytes(b"s")),
    (Secret[int], Secret(3)),
    (Birthday, Birthday(date(2000, 1, 2))),
    (list[SecretStr], [SecretStr("a"), SecretStr("b")]),
    (dict[str, Secret[Decimal]], {"a": Secret(Decimal("1.10"))}),
    (Login, LOGIN),
    (Login | int, LOGIN),
    (Account, Account("a", SecretStr("t"), LOGIN)),
    (Keys, {"main": SecretStr("m"), "others": {"o": SecretBytes(b"o")}}),
    (Box[SecretStr], Box[SecretStr](content=SecretStr("c"))),
    (Box[Box[Login]], Box[Box[Login]](content=Box[Login](content=LOGIN))),
    (Tree, Tree(secret=SecretStr("r"), children=[Tree(secret=SecretStr("c"))])),
    (Area, Area(width=2, height=3)),
    (Areas, Areas(areas=[Area(width=2, height=3)], largest={"a": Area(width=1, height=1)})),
    (Names, NAMED),
    (list[Names], [NAMED]),
    (Generated, Generated(first_name="a")),
    (OnlyNames, OnlyNames(name="a")),
    (Hidden, Hidden(shown=1, hidden=2, zero=0)),
    (Shown, Shown(when=date(2026, 1, 2), price=1.23, names=["a", "b"])),
    (Wrapped, Wrapped(n=1)),
    (AsText, AsText(n=1)),
    (Pet, Dog(age=3)),
    (list[Pet], [Dog(age=3), Cat()]),
    (Called, Cat(lives=8)),
    (Raw, Raw(data=b"abc\xff")),
    (RawOut, RawOut(data=b"abc")),
    (Seconds, Seconds(time=timedelta(days=-1, microseconds=3))),
    (Infinite, Infinite(ratio=float("inf"))),
    (Infinite, Infinite(ratio=float("nan"))),
    (Color, Color.RED),
    (Point, Point(1, date(2026, 1, 2))),
    (Derived, Derived(3)),
    (Private, Private(n=1)),
    (Open, Open(n=1, more={"a": [1]})),
    (Numbers, Numbers([1, 2])),
    (timedelta, timedelta(days=-1, microseconds=3)),
    (Decimal, Decimal("1.10")),
    (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
    (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)),
    (datetime, datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)),
    (set[int], {1, 2}),
    (frozenset[date], frozenset({date(2026, 1, 1)})),
    (tuple[int, str], (1, "a")),
    (Sequence[int], [1, 2]),
    (collections.deque[int], collections.deque([1])),
    (dict[int, str], {1: "a"}),
    (pathlib.Path, pathlib.Path("/a")),
    (int | str, "5"),
    (Any, {"a": [1, None, 2.5, "x"]}),
]


def named(value: object) -> str:
    """An id for a test case, the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))[:80]


def job_of(annotation: Any) -> JobTypeSpec:
    def handler(x: Any) -> Any: ...

    handler.__annotations__ = {"x": annotation, "return": annotation}
    return JobTypeSpec(handler, "carried")


@pytest.mark.parametrize(("annotation", "value"), CARRIED, ids=named)
def test_value_reaches_handler(annotation: Any, value: Any) -> None:
    job = job_of(annotation)
    payload = job.payload(x=value)
    if not isinstance(value, Infinite):  # its texts are no numbers, as its author wanted
        jsonschema.validate(payload, job.json_schema()["payload"])
    arrived = job.arguments(json.loads(plainjson.dumps(payload)))["x"]
    assert difference(value, arrived) is None
    assert "*****" not in str(payload)
    assert job.arguments(job.accept(payload)).keys() == {"x"}


@pytest.mark.parametrize(("annotation", "value"), CARRIED, ids=named)
def test_result_is_read_back(annotation: Any, value: Any) -> None:
    job = job_of(annotation)
    plain = job.result(value)
    assert difference(value, job.read_result(json.loads(plainjson.dumps(plain)))) is None
    assert "*****" not in str(plain)


@pytest.mark.parametrize(
    ("model", "value"), [(type(value), value) for _, value in CARRIED if isinstance(value, BaseModel)], ids=named
)
def test_model_alone_reaches_handler(model: type[BaseModel], value: BaseModel) -> None:
    def handler(whole: Any) -> None: ...

    handler.__annotations__ = {"whole": model}
    job = JobTypeSpec(handler, "alone")
    assert difference(value, next(iter(job.arguments(job.payload(value)).values()))) is None


def test_payload_has_names_that_are_read_and_result_those_that_are_written() -> None:
    job = job_of(Names)
    payload = job.payload(NAMED)
    assert payload == {"One": 1, "TwoIn": 2, "three": 3, "vier": 4, "five": 5}
    assert job.arguments({"One": 1, "TwoIn": 2, "deep": {"four": 4}, "path": [5]})["x"] == NAMED
    assert job.result(NAMED) == {"One": 1, "twoOut": 2, "threeOut": 3, "four": 4, "five": 5}
    assert job_of(Area).payload(Area(width=2, height=3)) == {"width": 2, "height": 3}
    assert job_of(Area).result(Area(width=2, height=3)) == {"width": 2, "height": 3, "area": 6}


def test_users_classes_stay_as_they_are() -> None:
    job_of(Login).payload(x=LOGIN)
    assert LOGIN.model_dump(mode="json")["password"] == "**********"
    assert Area(width=2, height=3).model_dump() == {"width": 2, "height": 3, "area": 6}
    assert Cat.model_validate({"type": "cat", "more": 1}) == Cat()


def test_json_schemas_do_not_show_the_default_of_a_secret() -> None:
    class Defaults(BaseModel):
        text: SecretStr = SecretStr("hunter2")
        any_text: Secret[str] = Secret("hunter2")
        several: list[SecretStr] = [SecretStr("hunter2")]
        plain: str = "seen"

    shown = str(job_of(Defaults).json_schema())
    assert "hunter2" not in shown
    assert "***" not in shown
    assert "seen" in shown


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
def test_value_that_would_change_is_refused(annotation: Any, value: Any, says: str) -> None:
    with pytest.raises(PayloadInvalid, match=says) as refused:
        job_of(annotation).payload(x=value)
    assert refused.value.errors
    assert "'s'" not in str(refused.value), "a value may be a secret"


def test_dataclass_that_forgets_an_argument_is_refused_when_it_is_loaded() -> None:
    @dataclass
    class Forgets:
        n: InitVar[int]

    with pytest.raises(JobTypeInvalid, match="InitVar 'n'"):
        job_of(Forgets)


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
def test_result_of_a_derived_class_is_recorded_whole(annotation: Any, value: Any, recorded: Any) -> None:
    job = job_of_result(annotation)
    assert job.result(value) == recorded
    job.read_result(recorded)


def test_result_of_a_derived_class_is_read_as_the_annotation_says() -> None:
    read = job_of_result(Point2).read_result({**RECORDED, "inner": None})
    assert (type(read), read.x, read.y) == (Point2, 1, 2)
    assert job_of_result(Closed).read_result({"x": 1, "y": 2}).y == 2
    assert job_of_result(BaseModel).read_result(RECORDED) == RECORDED
    assert job_of_result(list[Shape]).read_result([{"x": 1}]) == [{"x": 1}]
    assert job_of_result(Point2).read_result({"x": 1, "secret": "s"}) == Point2(x=1)


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
def test_result_that_could_not_be_read_back_is_refused(annotation: Any, value: Any, says: str) -> None:
    with pytest.raises(ResultInvalid, match=says):
        job_of_result(annotation).result(value)


def job_of_result(annotation: Any) -> JobTypeSpec:
    def handler() -> Any: ...

    handler.__annotations__ = {"return": annotation}
    return JobTypeSpec(handler, "returned")
