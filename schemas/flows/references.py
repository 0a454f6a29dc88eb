"""References to results in the payloads of a flow's nodes.

``{"$from": "fetch", "path": "/items"}`` stands for what is at the JSON Pointer (RFC 6901) ``path`` in the result of the
node ``fetch``; without ``path`` for the whole result. It is null if the node has not succeeded. For a mapped node it
is the list of its results, with null for each job that has not succeeded; null if there was no list to map, because the
node was skipped or could not be mapped. In a mapped node, ``{"$item": "/url"}`` stands for what is there in the item.
``{"$input": "/url"}`` stands for what is there in the input of the flow.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

FROM: Final = "$from"
ITEM: Final = "$item"
INPUT: Final = "$input"
PATH: Final = "path"

Location = tuple[str | int, ...]


class NotFound(Exception):
    """There is nothing at the path. The text says where."""


class Reference(NamedTuple):
    """``node`` None means the item or, with ``of_input``, the input of the flow."""

    node: str | None
    path: str
    of_input: bool = False

    def plain(self) -> dict[str, str]:
        """Return the reference as it is written in a payload."""
        if self.node is not None:
            return {FROM: self.node, PATH: self.path}
        return {INPUT if self.of_input else ITEM: self.path}

    def value_in(self, value: Any) -> Any:
        """Return what is at the path in ``value``. Raises NotFound."""
        for step in steps_of(self.path):
            try:
                value = step_into(value, step)
            except LookupError:
                raise NotFound(f"{self.source} has nothing at {self.path!r}") from None
        return value

    @property
    def source(self) -> str:
        """What it refers to, for messages."""
        if self.node is not None:
            return f"the result of the node {self.node}"
        return "the input of the flow" if self.of_input else "the item"


def is_reference(value: Any) -> bool:
    """Return whether a value of a payload is a reference, even a broken one."""
    return isinstance(value, dict) and not value.keys().isdisjoint({FROM, ITEM, INPUT})


def reference_of(value: Any) -> Reference | None:
    """Return the reference that a value of a payload is; None if it is none. Raises ValueError for a broken one."""
    if not is_reference(value):
        return None
    named = FROM in value
    key = INPUT if INPUT in value else ITEM
    extra = value.keys() - ({FROM, PATH} if named else {key})
    node, path = (value[FROM], value.get(PATH, "")) if named else (None, value[key])
    if extra or not isinstance(path, str) or not isinstance(node, str | None) or (named and node is None):
        raise ValueError(
            f'a reference is {{"{FROM}": node, "{PATH}": JSON Pointer}}, {{"{ITEM}": JSON Pointer}} or '
            f'{{"{INPUT}": JSON Pointer}}'
        )
    if path and not path.startswith("/"):
        raise ValueError(f"a path is a JSON Pointer: empty, or it begins with a slash: not {path!r}")
    return Reference(node, path, not named and key == INPUT)


def references(value: Any, at: Location = ()) -> Iterator[tuple[Location, Reference]]:
    """Yield the references in a payload with their locations. Raises ValueError, with the location as its second
    argument, for a broken one.
    """
    try:
        found = reference_of(value)
    except ValueError as error:
        raise ValueError(str(error), at) from None
    if found is not None:
        yield at, found
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from references(child, (*at, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from references(child, (*at, index))


def resolved(value: Any, look_up: Callable[[Reference], Any]) -> Any:
    """Return ``value`` with what ``look_up`` returns in the place of each reference."""
    if (found := reference_of(value)) is not None:
        return look_up(found)
    if isinstance(value, dict):
        return {key: resolved(child, look_up) for key, child in value.items()}
    if isinstance(value, list):
        return [resolved(child, look_up) for child in value]
    return value


def step_into(value: Any, step: str) -> Any:
    """Return what is in an object or a list at one step of a JSON Pointer. Raises LookupError if there is nothing."""
    if isinstance(value, dict) and step in value:
        return value[step]
    if isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
        return value[int(step)]
    raise LookupError(step)


def steps_of(path: str) -> list[str]:
    """Return the steps of a JSON Pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]
