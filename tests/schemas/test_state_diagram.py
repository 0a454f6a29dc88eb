"""The picture of the states is the transition table's."""

from jobtape.schemas.fold import TRANSITIONS
from jobtape.schemas.job import FINAL, JobState
from tools import state_diagram


def test_the_arrows_are_the_table_again() -> None:
    """Every arrow taken apart gives the table back, without what stays where it is."""
    drawn = set()
    for start, target, events in state_diagram.arrows(TRANSITIONS):
        starts = [state for state in JobState if state not in FINAL] if start == "open" else [start]
        drawn |= {(None if state == "[*]" else state, event, target) for state in starts for event in events}
    assert drawn == {
        (state, event, target)
        for (state, event), targets in TRANSITIONS.items()
        for target in targets
        if not state_diagram.stays(state, event, target, targets)
    }
