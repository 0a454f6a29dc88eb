"""Finds the job types of a module, and those that it declared and that are nowhere to be found in it.

A job type is an object of its module. One that a decorator outside ``@job`` wraps, that a later definition of the same
name replaces, or that an object keeps to itself, could not be loaded, and nobody would notice. So a job type that is
made while its module is being imported is noted here, and must be found in it.
"""

import inspect
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar

from jobtape.schemas.errors import JobTypeInvalid
from jobtape.schemas.job_types.signature import where_of


class Declared(Protocol):
    """A job type, as far as it matters here."""

    @property
    def name(self) -> str:
        """The job type's name."""

    @property
    def function(self) -> Any:
        """Its handler."""


T = TypeVar("T", bound=Declared)
_DEPTH: Final = 4
_declared: dict[str, dict[tuple[str, Any], Declared]] = {}
"""By module, then by name and code: what is imported another time takes the place of what it was."""


def note(job_type: Declared, function: Any) -> None:
    """Note a job type that is made of ``function`` while a module is imported."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is not None:
        module = _declared.setdefault(str(frame.f_globals.get("__name__")), {})
        module[job_type.name, getattr(inspect.unwrap(function), "__code__", None)] = job_type


def job_types_in(module: ModuleType, kind: type[T]) -> list[T]:
    """The job types of a module: its own attributes, those of its classes, and what its lists and mappings hold.

    Raises JobTypeInvalid for one that was declared in it and is not among them.
    """
    found = list({id(each): each for each in _in_values(vars(module).values(), kind, module.__name__, _DEPTH)}.values())
    for lost in _declared.get(module.__name__, {}).values():
        if not any(lost is each for each in found):
            raise JobTypeInvalid(_why_lost(lost, module, found))
    return found


def _in_values(values: Iterable[Any], kind: type[T], module: str, depth: int) -> Iterator[T]:
    for value in list(values):
        if isinstance(value, staticmethod):
            value = value.__func__  # noqa: PLW2901 - what the class has by this name
        if isinstance(value, kind):
            yield value
        elif depth == 0:
            continue
        elif type(value) is dict or (isinstance(value, type) and value.__module__ == module):
            yield from _in_values((value if type(value) is dict else vars(value)).values(), kind, module, depth - 1)
        elif type(value) in (list, tuple, set, frozenset):
            yield from _in_values(value, kind, module, depth - 1)


def _why_lost(lost: Declared, module: ModuleType, found: Iterable[Declared]) -> str:
    name, where = lost.function.__name__, where_of(lost.function)
    begin = f"{where}: the job type {lost.name!r} was declared in {module.__name__} and is not to be found in it"
    present = getattr(module, name, None)
    if isinstance(getattr(present, "__wrapped__", None), type(lost)):
        return f"{begin}: a decorator stands above @job, which a worker would not call: put @job above the others"
    if any(each.function.__qualname__ == lost.function.__qualname__ for each in found):
        return f"{begin}: another definition called {name} has taken its place: rename one"
    if callable(present):
        return (
            f"{begin}: {name} is something else there. If a decorator stands above @job, which a worker would not "
            "call, put @job above the others; if another definition has taken its place, rename one"
        )
    return f"{begin}: give it to a variable, a list or a dict of the module, or to a class there"
