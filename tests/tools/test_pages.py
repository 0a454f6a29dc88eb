"""Tests of the generated parts of the documentation."""

import re

import pytest

from jobtape.schemas.fold import TRANSITIONS
from tools import pages


def test_generated_parts_match_the_code() -> None:
    assert pages.write(check=True) == [], "run python -m tools.pages"


def test_table_of_states_has_each_transition() -> None:
    """Read the table again: it gives the transitions, without a ``submitted`` that changes nothing."""
    read = {}
    for row in pages.transitions_table().splitlines()[2:]:
        event, before, after = (re.findall(r"`(\w+)`|(no event known)", cell) for cell in row.strip("|").split("|"))
        for state, _ in before:
            read[state or None, event[0][0]] = tuple(target for target, _ in after)
    changing = {key: targets for key, targets in TRANSITIONS.items() if key[1] != "submitted" or key[0] is None}
    assert read == changing


def test_page_without_the_part_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times"):
        pages.updated("# nothing here", "states", "text")
