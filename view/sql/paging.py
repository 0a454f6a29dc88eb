"""Pages of rows that may be large: an event can have the size of the payload of its job."""

from collections.abc import Callable, Sequence
from typing import Any, Final

PAGE_BYTES: Final = 8 * 1024 * 1024
STEP: Final = 50
MOST_AT_ONCE: Final = 500
"""Rows that are fetched first, and at most at a time."""


def read_page(
    fetch: Callable[[int, int], Sequence[Any]], after: int, limit: int, size_of: Callable[[Any], int], max_bytes: int
) -> tuple[list[Any], bool]:
    """Read up to ``limit`` rows after the cursor ``after``, up to the row with which they reach ``max_bytes``.

    ``fetch(cursor, count)`` returns the next rows after a cursor; each has an attribute ``cursor``. Returns the rows,
    and whether more may follow.
    """
    rows: list[Any] = []
    size = 0
    while len(rows) < limit:
        step = next_step(len(rows), size, limit, max_bytes)
        found = fetch(rows[-1].cursor if rows else after, step)
        for row in found:
            if size >= max_bytes:
                return rows, True
            rows.append(row)
            size += size_of(row)
        if len(found) < step:
            return rows, False
        if size >= max_bytes:
            break
    return rows, True


def next_step(rows: int, size: int, limit: int, max_bytes: int) -> int:
    """Return how many rows to fetch after ``rows`` with ``size`` bytes, of a page of ``limit`` rows and ``max_bytes``:
    as many as fit if they are of the size of the others. The first ones may be large.
    """
    fitting = (max_bytes - size) * rows // size if size else STEP
    return max(1, min(MOST_AT_ONCE, limit - rows, fitting))
