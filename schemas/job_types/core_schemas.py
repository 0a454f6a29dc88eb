"""Copies pydantic's core schemas with changes, and finds nodes in them.

A user's class keeps its own validator and serializer. A derived schema is a changed copy of the class's core schema.
The validator and serializer for JSON are built from the copy, without the prebuilt ones of the classes, which would
undo the changes.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter

Node = dict[str, Any]
"""One schema, or one field of a schema."""
Change = Callable[[Node, Node], Node]
"""Takes a copy of a node, with changed children, and the config that applies to it. Returns the new node."""

_ONE: Final = (
    "schema",
    "items_schema",
    "keys_schema",
    "values_schema",
    "json_schema",
    "python_schema",
    "lax_schema",
    "strict_schema",
    "return_schema",
    "arguments_schema",
    "var_args_schema",
    "var_kwargs_schema",
    "extras_schema",
    "extras_keys_schema",
    "serialization",
)
_MANY: Final = ("items_schema", "arguments_schema", "steps", "definitions", "choices", "fields", "computed_fields")
CONFIGURED: Final = ("model", "dataclass", "typed-dict")
FUNCTIONS: Final = ("function-before", "function-after", "function-wrap", "function-plain")


def derive(node: Node, change: Change, config: Node | None = None) -> Node:
    """Return a copy of ``node`` with ``change`` applied to every node, children first. ``config`` is the inherited
    one.
    """
    inherited = config or {}
    if node.get("type") in CONFIGURED:
        inherited = node.get("config") or ({} if node["type"] == "model" else inherited)
    copy = dict(node)
    for key in _ONE:
        if isinstance(child := copy.get(key), dict):
            copy[key] = derive(child, change, inherited)
    for key in _MANY:
        match copy.get(key):
            case list() as children:
                copy[key] = [_derive_item(child, change, inherited) for child in children]
            case dict() as named if key in ("fields", "choices"):
                copy[key] = {name: _derive_item(child, change, inherited) for name, child in named.items()}
    return change(copy, inherited)


def nodes(node: Node) -> Iterator[Node]:
    """Return ``node`` and all nodes in it, children first."""
    found: list[Node] = []

    def note(each: Node, _: Node) -> Node:
        found.append(each)
        return each

    derive(node, note)
    yield from found


def is_users(function: Any) -> bool:
    """Return whether a validator or serializer is a user's. Those of pydantic itself are pure."""
    module = getattr(function, "__module__", None) or type(function).__module__
    return not module.partition(".")[0].startswith("pydantic")


def function_of(node: Node) -> Any:
    """Return the function of a validator or serializer node; None for another node."""
    function = node.get("function")
    return function.get("function") if isinstance(function, dict) else function


def masks(node: Node) -> bool:
    """Return whether the node writes ``**********`` in place of its value."""
    serialization = node.get("serialization")
    return isinstance(serialization, dict) and function_of(serialization) in _MASKS


def unmasked(node: Node) -> Node:
    """Return the serialization of a node that masks its value, without the mask."""
    secret = node["json_schema"]
    return {
        "type": "function-plain",
        "function": _reveal,
        "return_schema": secret.get("schema", {"type": "any"}),
        "when_used": "unless-none",
    }


def holds_secret(node: Node) -> bool:
    """Return whether a node in ``node`` masks its value, or did so before ``unmasked`` replaced it."""
    # A serialization is a node of its own.
    return any(masks(each) or each.get("function") is _reveal for each in nodes(node))


def is_secret(node: Node) -> bool:
    """Return whether the node itself masks its value, or did so before ``unmasked`` replaced it."""
    serialization = node.get("serialization")
    return masks(node) or (isinstance(serialization, dict) and serialization.get("function") is _reveal)


def _reveal(value: Any) -> Any:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def _derive_item(child: Any, change: Change, config: Node) -> Any:
    if isinstance(child, tuple):  # a choice with its label
        return (derive(child[0], change, config), *child[1:])
    return derive(child, change, config) if isinstance(child, dict) else child


def _masking_functions() -> set[Any]:
    found = set()
    for kind in (SecretStr, SecretBytes, Secret[str]):
        for node in nodes(dict(TypeAdapter(kind).core_schema)):
            if isinstance(serialization := node.get("serialization"), dict):
                found.add(function_of(serialization))
    return found


_MASKS: Final = frozenset(_masking_functions())
