"""Types that pydantic writes and reads in different ways, with values, and job types for them."""

import collections
import enum
import pathlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from pydantic import (
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
    Tag,
    computed_field,
    field_serializer,
    model_serializer,
)
from typing_extensions import TypedDict

from jobtape.schemas.job_types.job_type import JobTypeSpec

T = TypeVar("T")


class Password(SecretStr):
    """A user's own secret."""


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
    """An id for a test case that is the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))[:80]


def job_of(annotation: Any) -> JobTypeSpec:
    def handler(x: Any) -> Any: ...

    handler.__annotations__ = {"x": annotation, "return": annotation}
    return JobTypeSpec(handler, "carried")


def job_of_result(annotation: Any) -> JobTypeSpec:
    def handler() -> Any: ...

    handler.__annotations__ = {"return": annotation}
    return JobTypeSpec(handler, "returned")
