"""Compares a value with the one that was read back from its JSON."""

import dataclasses
import math
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel


def difference(given: Any, arrived: Any, path: str = "") -> str | None:
    """Return the first difference and its path, without values, which may be secrets; None if there is none.

    A list equals a tuple and a dict equals another mapping, because JSON has only lists and objects. Times in different
    zones are equal at the same instant. Objects of one class without ``__eq__`` are equal.
    """
    if given is arrived:
        return None
    if (pairs := _parts(given, arrived)) is not None:
        for step, one, other in pairs:
            if (found := difference(one, other, f"{path}.{step}" if path else str(step))) is not None:
                return found
        return None
    if _same(given, arrived):
        return None
    if type(given) is type(arrived):
        return f"{_at(path)}another {type(given).__name__} would arrive"
    return f"{_at(path)}a {type(given).__name__} would arrive as a {type(arrived).__name__}"


def _parts(given: Any, arrived: Any) -> list[tuple[Any, Any, Any]] | None:
    """(key, given, arrived) for each part of the two values; None if they are compared as a whole."""
    if type(given) is not type(arrived):
        if isinstance(given, Mapping) and type(arrived) is dict and not dataclasses.is_dataclass(given):
            return _entries(given, arrived)
        if type(given) in (tuple, deque) and type(arrived) is list:
            return _items(given, arrived)
        return None
    if isinstance(given, BaseModel):
        fields = [(name, given.__dict__.get(name), arrived.__dict__.get(name)) for name in type(given).model_fields]
        extras = _entries(given.__pydantic_extra__ or {}, arrived.__pydantic_extra__ or {})
        return None if extras is None else [*fields, *extras]
    if dataclasses.is_dataclass(given):
        names = [field.name for field in dataclasses.fields(given)]
        return [(name, getattr(given, name, None), getattr(arrived, name, None)) for name in names]
    if isinstance(given, dict):
        return _entries(given, arrived)
    if isinstance(given, list | tuple | deque):
        return _items(given, arrived)
    if hasattr(given, "get_secret_value"):
        return [("secret", given.get_secret_value(), arrived.get_secret_value())]
    return None


def _entries(given: Mapping[Any, Any], arrived: Mapping[Any, Any]) -> list[tuple[Any, Any, Any]] | None:
    if len(given) != len(arrived) or any(key not in arrived for key in given):
        return None
    kinds = {key: type(key) for key in arrived}
    if any(kinds[key] is not type(key) for key in given):  # 1 and True are equal keys of different types
        return None
    return [(key, value, arrived[key]) for key, value in given.items()]


def _items(given: Any, arrived: Any) -> list[tuple[Any, Any, Any]] | None:
    if len(given) != len(arrived):
        return None
    return [(n, one, other) for n, (one, other) in enumerate(zip(given, arrived, strict=True))]


def _same(given: Any, arrived: Any) -> bool:
    if isinstance(given, datetime) and isinstance(arrived, datetime):
        if (given.utcoffset() is None) is not (arrived.utcoffset() is None):
            return False
        return not given - arrived  # == is never true for an hour that occurs twice in its zone
    if type(given) is not type(arrived):
        return False
    if isinstance(given, float):
        return given == arrived or (math.isnan(given) and math.isnan(arrived))
    if isinstance(given, dict | list | tuple | deque | BaseModel):  # their sizes or keys differ
        return False
    compare: Any = type(given).__eq__
    if compare is object.__eq__:
        return True
    try:
        return bool(given == arrived) or given != given  # noqa: PLR0124 - a NaN of Decimal
    except Exception:  # noqa: BLE001 - a user's ``__eq__`` may raise, and an array's result is no bool
        return True


def _at(path: str) -> str:
    return f"{path}: " if path else ""
