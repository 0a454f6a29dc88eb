"""Unknown fields of a payload are refused at every depth, unless the model's config says otherwise."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, RootModel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.job_types.job_type import JobTypeSpec


class Item(BaseModel):
    article: str
    pieces: int = 1


class Order(BaseModel):
    items: list[Item] = []
    by_name: dict[str, Item] = {}
    best: Item | None = None


class Ignoring(BaseModel, extra="ignore"):
    n: int = 0
    item: Item | None = None


class Inheriting(Ignoring):
    m: int = 0


class Allowing(BaseModel, extra="allow"):
    n: int = 0


class Keys(TypedDict, total=False):
    n: int


class LooseKeys(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]
    n: int


class Pair(NamedTuple):
    n: int
    m: int = 0


@dataclass
class Plain:
    n: int = 0


@pydantic_dataclass(config=ConfigDict(extra="ignore"))
class Loose:
    n: int = 0


class Items(RootModel[list[Item]]): ...


class Tree(BaseModel):
    children: "list[Tree]" = []


def job_of(annotation: Any) -> JobTypeSpec:
    def handler(x: Any) -> None: ...

    handler.__annotations__ = {"x": annotation}
    return JobTypeSpec(handler, "orders")


def two(item: Item, n: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("job", "payload", "path"),
    [
        (job_of(Item), {"article": "a", "peices": 2}, "peices"),
        (job_of(Order), {"item": []}, "item"),
        (job_of(Order), {"items": [{"article": "a", "peices": 2}]}, "items.0.peices"),
        (job_of(Order), {"by_name": {"x": {"article": "a", "peices": 2}}}, "by_name.x.peices"),
        (job_of(Order), {"best": {"article": "a", "peices": 2}}, "best.peices"),
        (job_of(Tree), {"children": [{"children": [{"childern": []}]}]}, "children.0.children.0.childern"),
        (job_of(Items), {"x": [{"article": "a", "peices": 2}]}, "x.0.peices"),
        (job_of(list[Item]), {"x": [{"article": "a", "peices": 2}]}, "x.0.peices"),
        (job_of(Plain), {"x": {"m": 1}}, "x.m"),
        (job_of(Keys), {"x": {"m": 1}}, "x.m"),
        (job_of(Pair), {"x": {"n": 1, "o": 1}}, "x.o"),
        (job_of(Ignoring), {"item": {"article": "a", "peices": 2}}, "item.peices"),
        (JobTypeSpec(two, "two"), {"item": {"article": "a", "peices": 2}}, "item.peices"),
        (JobTypeSpec(two, "two"), {"item": {"article": "a"}, "m": 2}, "m"),
    ],
)
def test_misspelt_field_is_refused(job: JobTypeSpec, payload: dict[str, Any], path: str) -> None:
    for check in (job.arguments, job.accept):
        with pytest.raises(PayloadInvalid, match=path) as refused:
            check(payload)
        assert ".".join(map(str, refused.value.errors[0]["loc"])) == path


@pytest.mark.parametrize("handed_in", [{"article": "a", "peices": 2}])
def test_misspelt_argument_is_refused(handed_in: dict[str, Any]) -> None:
    with pytest.raises(PayloadInvalid, match="peices"):
        job_of(Item).payload(**handed_in)
    with pytest.raises(PayloadInvalid, match="peices"):
        JobTypeSpec(two, "two").payload(item=handed_in)


@pytest.mark.parametrize(
    ("annotation", "payload"),
    [
        (Ignoring, {"n": 1, "o": 2}),
        (Inheriting, {"m": 1, "o": 2}),
        (LooseKeys, {"x": {"n": 1, "o": 2}}),
        (Loose, {"x": {"n": 1, "o": 2}}),
        (list[Ignoring], {"x": [{"n": 1, "o": 2}]}),
    ],
)
def test_model_config_can_ignore_unknown_fields(annotation: Any, payload: dict[str, Any]) -> None:
    assert "2" not in repr(job_of(annotation).arguments(payload))


def test_model_config_can_keep_unknown_fields() -> None:
    job = job_of(Allowing)
    assert job.arguments({"n": 1, "o": 2})["x"].o == 2
    assert job.payload(n=1, o=2) == {"n": 1, "o": 2}


def test_json_schema_has_rule_for_unknown_fields() -> None:
    def extra_of(annotation: Any) -> Any:
        return job_of(annotation).json_schema()["payload"].get("additionalProperties", "ignored")

    assert extra_of(Item) is False
    assert extra_of(Ignoring) == "ignored"
    assert extra_of(Allowing) is True
    schema = job_of(Order).json_schema()["payload"]
    assert schema["$defs"]["Item"]["additionalProperties"] is False
    assert job_of(Plain).json_schema()["payload"]["$defs"]["Plain"]["additionalProperties"] is False
    assert job_of(Keys).json_schema()["payload"]["$defs"]["Keys"]["additionalProperties"] is False


def test_users_class_still_ignores_unknown_fields() -> None:
    job_of(Item)
    assert Item.model_validate({"article": "a", "peices": 2}) == Item(article="a")
    assert "additionalProperties" not in Item.model_json_schema()


def test_union_takes_member_with_the_fields() -> None:
    class Short(BaseModel):
        n: int

    class Long(BaseModel):
        n: int
        m: int = 0

    job = job_of(Short | Long)
    assert type(job.arguments({"x": {"n": 1, "m": 2}})["x"]) is Long
    assert type(job.arguments({"x": {"n": 1}})["x"]) is Short
    with pytest.raises(PayloadInvalid):
        job.arguments({"x": {"n": 1, "o": 2}})
