"""Tests of the generated parts of the documentation."""

import pytest

from jobtape.schemas.fold import TRANSITIONS
from jobtape.schemas.job import FINAL, JobState
from tools import pages


def test_generated_parts_match_the_code() -> None:
    assert pages.write(check=True) == [], "run python -m tools.pages"


def test_arrows_are_the_transition_table() -> None:
    """Expand the arrows again: they give the table, without what does not change the state."""
    drawn = set()
    for start, target, events in pages.arrows(TRANSITIONS):
        starts = [state for state in JobState if state not in FINAL] if start == "open" else [start]
        drawn |= {(None if state == "[*]" else state, event, target) for state in starts for event in events}
    assert drawn == {
        (state, event, target)
        for (state, event), targets in TRANSITIONS.items()
        for target in targets
        if not pages.stays(state, event, target, targets)
    }


def test_page_without_the_part_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times"):
        pages.updated("# nothing here", "states", "text")
