"""Finds the job types of a module, and refuses a module that declares one which cannot be found in it.

A job type is loaded as an object of its module. One that is wrapped by another decorator, replaced by a later
definition of the same name, or hidden in an object would be missing silently. So each job type that is made while its
module is imported is recorded here, and must be found in the module.
"""

import inspect
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar

from jobtape.schemas.errors import JobTypeInvalid
from jobtape.schemas.job_types.signature import where_of


class Declared(Protocol):
    """A job type, as this module uses it."""

    @property
    def name(self) -> str:
        """The job type's name."""

    @property
    def function(self) -> Any:
        """Its handler."""


T = TypeVar("T", bound=Declared)
_DEPTH: Final = 4
_declared: dict[str, dict[tuple[str, Any], Declared]] = {}
"""By module, then by name and code, so that a module that is imported again replaces its entries."""


def record(job_type: Declared, function: Any) -> None:
    """Record a job type that is made of ``function``, if a module is being imported."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is not None:
        module = _declared.setdefault(str(frame.f_globals.get("__name__")), {})
        module[job_type.name, getattr(inspect.unwrap(function), "__code__", None)] = job_type


def job_types_in(module: ModuleType, kind: type[T]) -> list[T]:
    """Return the job types of a module: its attributes, those of its classes, and the items of its collections.

    Raises JobTypeInvalid if the module declared one that is not among them.
    """
    found = list({id(each): each for each in _in_values(vars(module).values(), kind, module.__name__, _DEPTH)}.values())
    for lost in _declared.get(module.__name__, {}).values():
        if not any(lost is each for each in found):
            raise JobTypeInvalid(_why_lost(lost, module, found))
    return found


def _in_values(values: Iterable[Any], kind: type[T], module: str, depth: int) -> Iterator[T]:
    for value in list(values):
        if isinstance(value, staticmethod):
            value = value.__func__  # noqa: PLW2901 - the function in the class
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
    begin = f"{where}: the job type {lost.name!r} was declared in {module.__name__} and cannot be found in it"
    present = getattr(module, name, None)
    if isinstance(getattr(present, "__wrapped__", None), type(lost)):
        return f"{begin}: a decorator above @job would not be called by a worker: put @job above the other decorators"
    if any(each.function.__qualname__ == lost.function.__qualname__ for each in found):
        return f"{begin}: another definition of {name} replaces it: rename one"
    if callable(present):
        return (
            f"{begin}: {name} is another object there. If a decorator is above @job, which a worker would not call, "
            "put @job above the other decorators; if another definition replaces it, rename one"
        )
    return f"{begin}: assign it to a variable, a list or a dict of the module, or to a class in it"
