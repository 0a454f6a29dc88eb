"""What is known of one column after its values have passed by once, in bounded memory."""

import hashlib
import math
import re
from collections import Counter
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

MAX_DISTINCT = 10_000
"""Up to so many different values a column's values are counted one by one."""
MAX_KEPT_CHARACTERS = 100
TOP = 5

# More digits would not fit 64 bits, which is all that most readers of a result have: those are numbers.
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")

ColumnType = Literal["empty", "integer", "number", "time", "text"]


class TopValue(BaseModel):
    """A value and in how many rows it stands."""

    value: str
    count: int


class ColumnProfile(BaseModel):
    """A column. ``count`` are its values, ``missing`` the rows without one (empty, or the row ends before).

    ``type`` is the narrowest that fits every value; ``min`` and ``max`` go by it (numbers by size, times and text by
    their characters), ``mean`` is there for numbers (unless their sum is beyond all numbers). ``distinct`` is exact
    unless ``distinct_is_at_least``; then ``top`` is empty. Values of over 100 characters are shown by their beginning
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
    """Takes the values of one column one after the other (``add``), and sums them up (``profile``)."""

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
        """One row's value; an empty one (or only blanks) is missing."""
        value = value.strip()
        if not value:
            self.missing += 1
            return
        self.count += 1
        text = _clip(value)
        if not self._many:
            self._counts[text] += 1
            # One more than is kept shows that there are more, and is what "at least" counts.
            self._many = len(self._counts) > MAX_DISTINCT
        low, high = self._texts or (text, text)
        self._texts = (min(low, text), max(high, text))
        self._narrow(value)

    def profile(self) -> ColumnProfile:
        """The column as far as its values have come."""
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
        """Keep the narrowest type that fits ``value`` and all before it."""
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
    # "nan" and "inf" are words that float() takes for numbers, and so is "1_000".
    return number if math.isfinite(number) and "_" not in value else None


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _clip(value: str) -> str:
    value = value.replace("\0", "\ufffd")  # which no database's text can hold
    if len(value) <= MAX_KEPT_CHARACTERS:
        return value
    return f"{value[:60]}… {hashlib.sha256(value.encode()).hexdigest()[:16]}"
