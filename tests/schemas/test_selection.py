"""Faults and texts of filters. Which events they match is tested with the history."""

import pytest

from jobtape.schemas.filters.selection import Selection

SOME = [
    Selection(),
    Selection(events=frozenset({"failed", "succeeded"})),
    Selection(types=frozenset({"failed", "succeeded"})),
    Selection(types=frozenset({"mail.*", "add"}), labels={"a": "b=c", "d": "e"}),
    Selection(types=frozenset({"mail.*", "add"}), labels={"a": "b", "c,d": "e"}),
    Selection(job="0197a2b4-0000-7000-8000-000000000001", correlation_id="ü" * 100),
    Selection(labels={f"label-{n}": "x" * 200 for n in range(32)}),
    Selection(labels={f"label-{n}": "x" * 200 for n in range(31)} | {"label-31": "y"}),
]


def test_filter_texts_are_distinct_and_short() -> None:
    texts = [each.in_words() for each in SOME]
    assert len(set(texts)) == len(texts)
    assert all(len(text.encode()) <= 200 for text in texts)
    again = Selection(types=frozenset({"add", "mail.*"}), labels={"d": "e", "a": "b=c"})
    assert again.in_words() == texts[3]


@pytest.mark.parametrize("fine", SOME[1:4:2], ids=["events", "labels"])
def test_valid_filter_has_no_fault(fine: Selection) -> None:
    assert fine.fault() is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Selection(events=frozenset({"finished"})), "succeeded, failed"),
        (Selection(types=frozenset({"*.mail"})), "mail.*"),
        (Selection(types=frozenset({"*"})), "mail.*"),
        (Selection(job="7"), "no job id"),
    ],
)
def test_filter_that_matches_nothing_has_fault(bad: Selection, said: str) -> None:
    assert said in (bad.fault() or "")
