"""Profiles one column of a table in one pass over its values, in bounded memory."""

import hashlib
import math
import re
from collections import Counter
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

MAX_DISTINCT = 10_000
"""The largest number of distinct values that are counted one by one."""
MAX_KEPT_CHARACTERS = 100
TOP = 5

# Integers with more digits do not fit 64 bits, which many programs that read results are limited to.
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")

ColumnType = Literal["empty", "integer", "number", "time", "text"]


class TopValue(BaseModel):
    """A value, and the number of rows that have it."""

    value: str
    count: int


class ColumnProfile(BaseModel):
    """The profile of a column.

    ``count`` is the number of values, ``missing`` the number of rows without one (empty, or the row is shorter).
    ``type`` is the narrowest type of all values. ``min`` and ``max`` compare numbers by size, times and text by their
    characters. ``mean`` is set for numbers unless their sum overflows. ``distinct`` is exact unless
    ``distinct_is_at_least`` is set; then ``top`` is empty. Values of over 100 characters are shown as their beginning
    and a digest.
    """

    name: str
    type: ColumnType
    count: int
    missing: int
    distinct: int
    distinct_is_at_least: bool
    min: int | float | str | None
    max: int | float | str | None
    mean: float | None
    top: list[TopValue]


class Column:
    """Collects the values of one column: ``add`` each value, then ``profile``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.missing = 0
        self._type: ColumnType = "empty"
        self._counts: Counter[str] = Counter()
        self._many = False
        self._sum: int | float = 0
        self._numbers: tuple[int | float, int | float] | None = None
        self._texts: tuple[str, str] | None = None

    def add(self, value: str) -> None:
        """Add the value of one row. A value that is empty or blank counts as missing."""
        value = value.strip()
        if not value:
            self.missing += 1
            return
        self.count += 1
        text = _clip(value)
        if not self._many:
            self._counts[text] += 1
            # One more than the limit is kept: it shows that there are more.
            self._many = len(self._counts) > MAX_DISTINCT
        low, high = self._texts or (text, text)
        self._texts = (min(low, text), max(high, text))
        self._narrow(value)

    def profile(self) -> ColumnProfile:
        """Return the profile of the values so far."""
        numeric = self._type in ("integer", "number")
        bounds = self._numbers if numeric else self._texts
        mean = self._sum / self.count if numeric else math.nan
        return ColumnProfile(
            name=self.name,
            type=self._type,
            count=self.count,
            missing=self.missing,
            distinct=len(self._counts),
            distinct_is_at_least=self._many,
            min=None if bounds is None else bounds[0],
            max=None if bounds is None else bounds[1],
            mean=mean if math.isfinite(mean) else None,
            top=[] if self._many else self._top(),
        )

    def _narrow(self, value: str) -> None:
        """Set the narrowest type that fits ``value`` and all values before it."""
        if self._type in ("empty", "integer", "number"):
            number = _number(value)
            if number is not None:
                if self._type != "number":
                    self._type = "integer" if isinstance(number, int) else "number"
                self._sum += number
                low, high = self._numbers or (number, number)
                self._numbers = (min(low, number), max(high, number))
                return
        if self._type in ("empty", "time") and _is_time(value):
            self._type = "time"
        else:
            self._type = "text"

    def _top(self) -> list[TopValue]:
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return [TopValue(value=value, count=count) for value, count in ranked[:TOP]]


def _number(value: str) -> int | float | None:
    if _INTEGER.fullmatch(value):
        return int(value)
    try:
        number = float(value)
    except ValueError:
        return None
    # float() also accepts "nan", "inf" and "1_000".
    return number if math.isfinite(number) and "_" not in value else None


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _clip(value: str) -> str:
    value = value.replace("\0", "\ufffd")  # PostgreSQL cannot store it in text
    if len(value) <= MAX_KEPT_CHARACTERS:
        return value
    return f"{value[:60]}… {hashlib.sha256(value.encode()).hexdigest()[:16]}"
