"""References to results in the payloads of a flow's nodes.

``{"$from": "fetch", "path": "/items"}`` stands for what is at the JSON Pointer (RFC 6901) ``path`` in the result of the
node ``fetch``; without ``path`` for the whole result. It is null if the node has not succeeded. For a mapped node it
is the list of its results, with null for each job that has not succeeded; null if there was no list to map, because the
node was skipped or could not be mapped. In a mapped node, ``{"$item": "/url"}`` stands for what is there in the item.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

FROM: Final = "$from"
ITEM: Final = "$item"
PATH: Final = "path"

Location = tuple[str | int, ...]


class NotFound(Exception):
    """There is nothing at the path. The text says where."""


class Reference(NamedTuple):
    """``node`` None means the item."""

    node: str | None
    path: str

    def plain(self) -> dict[str, str]:
        """Return the reference as it is written in a payload."""
        return {ITEM: self.path} if self.node is None else {FROM: self.node, PATH: self.path}

    def find(self, value: Any) -> Any:
        """Return what is at the path in ``value``. Raises NotFound."""
        for step in steps_of(self.path):
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                what = "the item" if self.node is None else f"the result of the node {self.node}"
                raise NotFound(f"{what} has nothing at {self.path!r}")
        return value


def reference_of(value: Any) -> Reference | None:
    """Return the reference that a value of a payload is; None if it is none. Raises ValueError for a broken one."""
    if not isinstance(value, dict) or not (value.keys() & {FROM, ITEM}):
        return None
    named = FROM in value
    extra = value.keys() - ({FROM, PATH} if named else {ITEM})
    node, path = (value[FROM], value.get(PATH, "")) if named else (None, value[ITEM])
    if extra or not isinstance(path, str) or not isinstance(node, str | None) or (named and node is None):
        raise ValueError(f'a reference is {{"{FROM}": node, "{PATH}": JSON Pointer}} or {{"{ITEM}": JSON Pointer}}')
    if path and not path.startswith("/"):
        raise ValueError(f"a path is a JSON Pointer: empty, or it begins with a slash: not {path!r}")
    return Reference(node, path)


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


def steps_of(path: str) -> list[str]:
    """Return the steps of a JSON Pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]
