"""Jobs that wait for each other are found, against the standard library's search for cycles."""

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.flows.deadlock import Wait, deadlock

NAMES = st.sampled_from("abcdef")
WAITS = st.builds(
    Wait,
    job=st.text("0123456789", min_size=2, max_size=2),
    gate=st.tuples(st.just(""), NAMES),
    holder=NAMES,
    waiting=st.lists(NAMES, max_size=3, unique=True).map(tuple),
)


@given(st.lists(WAITS, max_size=8))
def test_circle_is_found_if_there_is_one(waits: list[Wait]) -> None:
    edges = {(job, wait.holder): wait for wait in waits for job in wait.waiting}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for job, holder in edges:
        sorter.add(job, holder)
    found = deadlock(waits)
    try:
        sorter.prepare()
    except CycleError:
        assert found is not None
        wait, circle = found
        assert len(set(circle)) == len(circle)
        between = list(pairwise([*circle, circle[0]]))
        assert all(edge in edges for edge in between)
        assert any(wait.holder == holder and job in wait.waiting for job, holder in between)
        return
    assert found is None


def test_youngest_follow_up_of_the_circle_is_to_end() -> None:
    waits = [
        Wait("1", ("", "b"), "B", ("A",)),
        Wait("3", ("", "a"), "A", ("B",)),
        Wait("2", ("", "a"), "A", ("B",)),
        Wait("9", ("", "a"), "A", ("D",)),  # it only waits for the circle
    ]
    found = deadlock(waits)
    assert found is not None
    assert (found[0].job, sorted(found[1])) == ("3", ["A", "B"])
