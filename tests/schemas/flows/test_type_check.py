"""What a node refers to, compared with what its job type takes: examples, and any types against pydantic itself."""

import types
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from jobtape.schemas.flows.type_check import _Schema, _why_unfit

_STRICT: Final = ConfigDict(extra="forbid")
_SCALARS: Final[list[tuple[Any, st.SearchStrategy[Any]]]] = [
    (int, st.integers(-5, 5)),
    (float, st.floats(-5, 5)),
    (str, st.text("a1", min_size=1, max_size=3)),
    (bool, st.booleans()),
    (type(None), st.none()),
]


@st.composite
def types_with_values(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """Return a type, and its values as plain JSON, whose lists are not empty."""
    kind = draw(st.sampled_from(["scalar", "list", "union", "model"] if depth else ["scalar"]))
    if kind == "scalar":
        scalar, plain = draw(st.sampled_from(_SCALARS))
        return scalar, plain
    one, values = draw(types_with_values(depth - 1))
    if kind == "list":
        return types.GenericAlias(list, (one,)), st.lists(values, min_size=1, max_size=2)
    two, others = draw(types_with_values(depth - 1))
    if kind == "union":
        return one | two, values | others
    names = draw(st.permutations(["a", "b", "c"]))[:2]
    fields: dict[str, Any] = {names[0]: (one, ...), names[1]: (two, ...)}
    model: type[BaseModel] = create_model("Model", __config__=_STRICT, **fields)
    return model, st.fixed_dictionaries({names[0]: values, names[1]: others})


def why(have: Any, want: Any) -> str | None:
    found, wanted = TypeAdapter(have).json_schema(mode="serialization"), TypeAdapter(want).json_schema()
    return _why_unfit([_Schema(found, found)], [_Schema(wanted, wanted)])


@given(types_with_values(), types_with_values(), st.data())
def test_types_that_do_not_fit_have_no_value_that_does(
    have: tuple[Any, st.SearchStrategy[Any]], want: tuple[Any, st.SearchStrategy[Any]], data: st.DataObject
) -> None:
    value = data.draw(have[1])
    try:
        TypeAdapter(want[0]).validate_python(value)
    except ValidationError:
        return
    assert why(have[0], want[0]) is None


@given(types_with_values())
def test_each_type_fits_itself(one: tuple[Any, st.SearchStrategy[Any]]) -> None:
    assert why(one[0], one[0]) is None


class Item(BaseModel):
    href: str
    parts: "list[Item]"


class Other(BaseModel, extra="forbid"):
    href: int | None = None


@pytest.mark.parametrize(
    ("have", "want", "reason"),
    [
        (int, str, "it is an integer, not a string"),
        (None, int, "it is null, not an integer"),
        (list[int], int, "it is a list, not an integer"),
        (list[list[int]], list[int], "of each item, it is a list, not an integer"),
        (list[int | None], list[str], "of each item, it is an integer, not a string"),
        (Item, Other, "it has a field parts, which is not known there"),
        (Other, Item, "it has no field parts"),
        (list[Item], list[Item], None),
        (str, int, None),
        (int | None, int, None),
        (Any, int, None),
        (dict[str, int], Item, None),
    ],
)
def test_reason_says_where_and_why(have: Any, want: Any, reason: str | None) -> None:
    found = why(have, want)
    assert found == reason if reason is None else found is not None and reason in found
