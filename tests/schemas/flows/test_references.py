"""References in payloads."""

from typing import Any

import pytest

from jobtape.schemas.flows.references import NotFound, Reference, references, resolved


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", {"a/b": [{"~": 1}], "": 2}),
        ("/a~1b/0/~0", 1),
        ("/", 2),
    ],
)
def test_path_is_a_json_pointer(path: str, found: Any) -> None:
    assert Reference("n", path).value_in({"a/b": [{"~": 1}], "": 2}) == found


@pytest.mark.parametrize("path", ["/b", "/a/2", "/a/-", "/a/01x", "/a/0/x"])
def test_path_to_nothing_is_an_error_that_names_it(path: str) -> None:
    with pytest.raises(NotFound, match=path):
        Reference("n", path).value_in({"a": [1, 2]})


def test_references_are_replaced_at_any_depth() -> None:
    payload = {"x": [{"$from": "a", "path": "/y"}, {"z": {"$item": ""}}], "u": 1}
    assert dict(references(payload)) == {("x", 0): Reference("a", "/y"), ("x", 1, "z"): Reference(None, "")}
    assert resolved(payload, lambda found: found.node) == {"x": ["a", {"z": None}], "u": 1}


@pytest.mark.parametrize(
    "broken",
    [{"$from": "a", "more": 1}, {"$from": 1}, {"$from": "a", "path": "x"}, {"$item": 3}, {"$item": "", "$from": "a"}],
)
def test_broken_reference_is_refused_with_its_location(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"reference|JSON Pointer") as caught:
        list(references({"x": [broken]}))
    assert caught.value.args[1] == ("x", 0)
