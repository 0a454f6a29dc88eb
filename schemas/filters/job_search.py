"""A search in what jobs contain: values in their payloads and results, and text in their errors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from jobtape.schemas import plainjson
from jobtape.schemas.job import Job

Part = Literal["payload", "result"]
MOST_VALUES: Final = 8
MOST_STEPS: Final = 16
LONGEST_PATH: Final = 200
LONGEST_TEXT: Final = 1000


@dataclass(frozen=True, slots=True)
class ValueSearch:
    """A value at a path in the payload or the result.

    ``path``: keys of objects; empty for the result itself. In a list, a number is an index, and any other step is
    looked up in each element. ``text``: a string, or the JSON text of a number, ``true``, ``false`` or ``null``.
    """

    part: Part
    path: tuple[str, ...]
    text: str

    def found_in(self, value: Any) -> bool:
        """Return whether the payload or result contains it."""
        return any(_text_of(found) == self.text for found in _values_at(value, self.path))


@dataclass(frozen=True, slots=True)
class JobSearch:
    """Conditions that a job must all meet. ``error``: part of the type or the message of its error, in any case."""

    values: tuple[ValueSearch, ...] = ()
    error: str = ""

    def __bool__(self) -> bool:
        return bool(self.values or self.error)

    def fits(self, job: Job) -> bool:
        """Return whether the job meets all conditions."""
        if not all(each.found_in(getattr(job, each.part)) for each in self.values):
            return False
        wanted, error = self.error.casefold(), job.error
        return not wanted or (
            error is not None and (wanted in error.message.casefold() or wanted in error.type.casefold())
        )


def value_search(part: Part, path: str, value: Any) -> ValueSearch:
    """Return the search for a JSON value that is no list or object. Raises ValueError for a bad path or value."""
    steps = tuple(path.split(".")) if path else ()
    name = f"{part}.{path[:LONGEST_PATH]}"
    if len(path) > LONGEST_PATH or len(steps) > MOST_STEPS:
        raise ValueError(f"{name}: a path has at most {LONGEST_PATH} characters and {MOST_STEPS} steps")
    if not all(steps) or (part == "payload" and not steps):
        raise ValueError(f"{name}: write the path as keys with a dot between them, such as {part}.customer.id")
    text = value if isinstance(value, str) else plainjson.dumps(value).decode()
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{name}: a value has at most {LONGEST_TEXT} characters")
    if (reason := plainjson.fault(text) or plainjson.fault(path)) is not None:
        raise ValueError(f"{name}: {reason.removeprefix('value: ')}")
    return ValueSearch(part, steps, text)


def value_searches(values: Mapping[tuple[Part, str], Any]) -> tuple[ValueSearch, ...]:
    """Return the searches for values by part and path. Raises ValueError."""
    if len(values) > MOST_VALUES:
        raise ValueError(f"a search has at most {MOST_VALUES} values in payload and result")
    return tuple(value_search(part, path, value) for (part, path), value in values.items())


def _values_at(value: Any, path: tuple[str, ...]) -> Iterable[Any]:
    if isinstance(value, list):
        if path and path[0].isascii() and path[0].isdigit():
            index = int(path[0])
            yield from _values_at(value[index], path[1:]) if index < len(value) else ()
        else:
            for element in value:
                yield from _values_at(element, path)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _values_at(value[path[0]], path[1:])


def _text_of(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return None if isinstance(value, dict) else plainjson.dumps(value).decode()
