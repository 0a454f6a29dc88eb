"""How many rows of a page are fetched at a time."""

from dataclasses import dataclass

import pytest

from jobtape.view.sql.paging import MOST_AT_ONCE, STEP, read_page


@dataclass
class Row:
    cursor: int
    size: int


@pytest.mark.parametrize(
    ("size", "most", "steps"),
    [
        (100, 8_000_000, [STEP, MOST_AT_ONCE, 450]),  # small rows need few statements
        (0, 8_000_000, [STEP] * 20),
        (100_000, 8_000_000, [STEP, 30]),  # no more than fit
        (1_000_000, 8_000_000, [STEP]),
    ],
)
def test_page_is_fetched_in_steps_that_fit_into_its_bytes(size: int, most: int, steps: list[int]) -> None:
    fetched: list[int] = []

    def fetch(after: int, count: int) -> list[Row]:
        fetched.append(count)
        return [Row(after + n + 1, size) for n in range(count)]

    rows, more = read_page(fetch, 0, 1000, lambda row: row.size, most)

    assert fetched == steps
    assert more
    assert [row.cursor for row in rows] == list(range(1, len(rows) + 1))
    assert sum(row.size for row in rows[:-1]) < most
