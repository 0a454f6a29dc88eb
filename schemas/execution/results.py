"""Results of other jobs as a handler gets them: in its payload or, if they are too many, by reference."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

RESULTS: Final = "$results"


@dataclass(frozen=True, slots=True)
class ResultsReference:
    """Where results are that a payload has no room for.

    ``nodes``: the mapped node, or nodes with one result each, with the JSON Pointers into their results. ``as_of``: the
    cursor as of which the results are handed on. ``count``: how many they are. ``flow``: the flow, or the job whose
    follow-ups the nodes are; None if it is not known.
    """

    nodes: tuple[tuple[str, str], ...]
    as_of: int
    count: int
    flow: str | None = None

    def plain(self) -> dict[str, Any]:
        """Return the reference as it is written in a payload, without the flow, which is that of the job."""
        return {RESULTS: {"nodes": [list(each) for each in self.nodes], "as_of": self.as_of, "count": self.count}}


def reference_in(value: Any, flow: str | None) -> ResultsReference | None:
    """Return the reference that a value of a payload is; None if it is none. Raises ValueError for a broken one."""
    if not isinstance(value, Mapping) or value.keys() != {RESULTS}:
        return None
    try:
        given = value[RESULTS]
        nodes = tuple((str(name), str(path)) for name, path in given["nodes"])
        return ResultsReference(nodes, int(given["as_of"]), int(given["count"]), flow)
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"this is not a reference to results: {str(value)[:200]}") from None


class Results(Generic[T]):
    """The results of other jobs, in their order: ``async for part in parts``, or ``for part in parts`` in a ``def``.

    A parameter ``parts: Results[int]`` takes what ``list[int]`` takes. If the results that a flow or ``ctx.then`` hands
    on do not fit into a payload, they are read from the API, a page at a time, while the handler iterates. Raises
    ApiError then, and PayloadInvalid for a result that is no ``int``.
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = list(items)
        self._reference: ResultsReference | None = None
        self._check: Callable[[list[Any]], list[T]] = list

    @classmethod
    def referred(cls, reference: ResultsReference, check: Callable[[list[Any]], list[T]]) -> "Results[T]":
        """Return the results that ``reference`` means. ``check`` converts those of a page from JSON."""
        made = cls()
        made._reference, made._check = reference, check
        return made

    def __len__(self) -> int:
        return len(self._items) if self._reference is None else self._reference.count

    def __iter__(self) -> Iterator[T]:
        if self._reference is None:
            yield from self._items
            return
        # By name: this module is pure, and most handlers read nothing.
        for page in import_module("jobtape.results").pages_sync(self._reference):
            yield from self._check(page)

    async def __aiter__(self) -> AsyncIterator[T]:
        if self._reference is None:
            for each in self._items:
                yield each
            return
        async for page in import_module("jobtape.results").pages(self._reference):
            for each in self._check(page):
                yield each

    def __repr__(self) -> str:
        return f"<{len(self)} results>" if self._reference is not None else f"Results({self._items!r})"
