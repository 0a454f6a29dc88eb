"""Handlers that get many jobs in one call: parameters and result are lists with one value for each job."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Union, get_args, get_origin

from jobtape.schemas.errors import JobTypeInvalid
from jobtape.schemas.job_types.signature import hints_of

LARGEST: Final = 1000
LONGEST_WAIT: Final = 60.0
_LISTS: Final = (list, Sequence)


@dataclass(frozen=True, slots=True)
class Batch:
    """How many jobs one call of a handler gets: up to ``size``, those that come ``within`` seconds after the first."""

    size: int
    within: float = 0.1

    def fault(self) -> str | None:
        """Return what is wrong with the values, None if nothing is."""
        if not 2 <= self.size <= LARGEST:
            return f"the size of a batch is a number from 2 to {LARGEST}, not {self.size!r}"
        if not (0 < self.within <= LONGEST_WAIT and math.isfinite(self.within)):
            return f"within is a number of seconds above 0, at most {LONGEST_WAIT:g}, not {self.within!r}"
        return None


def one_job_of(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    """Return a function that has the signature of one job: without the lists of the batch handler ``function``.

    Raises JobTypeInvalid with what to change.
    """
    hints = hints_of(function, where)
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty:
            raise JobTypeInvalid(
                f"{where}: {parameter.name!r} has a default, which would be one for all jobs of a batch: put it into a "
                "pydantic model, and take a list of that"
            )
        item = _item_of(hints.get(parameter.name))
        if item is None:
            raise JobTypeInvalid(
                f"{where}: {parameter.name!r} gets a value for each job of a batch: annotate it list[...]"
            )
        parameters.append(parameter.replace(annotation=item))
    returns = hints.get("return", Any)
    if returns not in (Any, None, types.NoneType):
        item = _item_of(returns)
        if item is None:
            raise JobTypeInvalid(
                f"{where}: a batch handler returns a result for each job, or nothing: annotate it list[...] or None"
            )
        returns = _without_exceptions(item)

    def one() -> None:
        """Only its signature is used."""

    one.__module__, one.__qualname__ = function.__module__, function.__qualname__
    one.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": returns}
    one.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return one


def _item_of(hint: Any) -> Any:
    arguments = get_args(hint)
    return arguments[0] if get_origin(hint) in _LISTS and len(arguments) == 1 else None


def _without_exceptions(hint: Any) -> Any:
    """Return the type of the results of jobs that succeed: a handler may return an exception for one that fails."""
    if get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    kept = tuple(each for each in get_args(hint) if not (isinstance(each, type) and issubclass(each, BaseException)))
    return Union[kept] if kept else hint  # noqa: UP007 - made at run time
