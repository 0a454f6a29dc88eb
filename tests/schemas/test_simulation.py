"""The simulation of other limits against an independent reference, and what no schedule of placements may break."""

import heapq
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.queueing.gates import Gates, Limit
from jobtape.schemas.queueing.simulation import PastRun, simulated_waits

RUNS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20), st.sampled_from(["a", "b", "c"]), st.booleans()), max_size=40
)
Given = list[tuple[int, int, str, bool]]


def runs_of(given: Given, at_most: int, shared: int | None = None, rate: int | None = None) -> list[PastRun]:
    """Return runs that are due in the order of the tape, with a limit by key, one for all, and a rate for all."""
    found = []
    for n, (due, seconds, key, ordered) in enumerate(sorted(given, key=lambda run: run[0])):
        limits = [Limit(name="mail", key=key, at_most=at_most)]
        if shared is not None:
            limits.append(Limit(name="all", at_most=shared))
        if rate is not None:
            limits.append(Limit(name="rate", at_most=rate, per=10.0))
        gates = Gates(limits=tuple(limits), ordering_key=f"order {key}" if ordered and shared else None)
        found.append(PastRun(str(n), "mail", gates, float(due), float(seconds)))
    return found


@given(RUNS, st.integers(1, 4))
def test_limit_by_key_is_a_queue_with_that_many_servers_for_each_key(given: Given, at_most: int) -> None:
    runs = runs_of(given, at_most)
    servers: dict[str, list[float]] = defaultdict(lambda: [0.0] * at_most)
    expected = []
    for run in runs:
        free = servers[run.gates.limits[0].key]
        begin = max(run.due, heapq.heappop(free))
        heapq.heappush(free, begin + run.seconds)
        expected.append(begin - run.due)
    assert simulated_waits(runs) == pytest.approx(expected)


@given(RUNS, st.integers(1, 3), st.integers(1, 5), st.integers(1, 20))
def test_no_gate_is_ever_overfull(given: Given, at_most: int, shared: int, rate: int) -> None:
    runs = runs_of(given, at_most, shared, rate)
    placed = [run.due + wait for run, wait in zip(runs, simulated_waits(runs), strict=True)]
    assert all(begin >= run.due for run, begin in zip(runs, placed, strict=True))
    for name, most in (("mail", at_most), ("all", shared)):
        taken: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for run, begin in zip(runs, placed, strict=True):
            (limit,) = [each for each in run.gates.limits if each.name == name]
            taken[limit.key] += [(begin, 1), (begin + run.seconds, -1)] if run.seconds else []
        for changes in taken.values():
            held = 0
            for _, change in sorted(changes):
                held += change
                assert held <= most
    for a, b in zip(sorted(placed), sorted(placed)[rate:], strict=False):
        assert b - a >= 10.0 - 1e-6, "no window of ten seconds has more placements than the rate allows"
    orders: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run, begin in zip(runs, placed, strict=True):
        if run.gates.ordering_key is not None:
            orders[run.gates.ordering_key].append((begin, begin + run.seconds))
    assert all(end <= begin for spans in orders.values() for (_, end), (begin, _) in pairwise(spans))


def test_keys_take_turns_at_a_shared_limit() -> None:
    """Ten of b do not wait for a hundred of a, which came first."""
    gates = {key: Gates(limits=(Limit(name="all", at_most=1),), turn=key) for key in "ab"}
    runs = [
        PastRun(f"{key}{n}", "mail", gates[key], 0.0, 1.0)
        for key, count in (("a", 100), ("b", 10))
        for n in range(count)
    ]
    waits = simulated_waits(runs)
    assert max(waits[100:]) <= 20
    assert max(waits) == 109


def test_run_without_gates_does_not_wait() -> None:
    run = PastRun("1", "mail", Gates(), 5.0, 100.0)
    assert simulated_waits([run, replace(run, job_id="2")]) == [0, 0]
    assert simulated_waits([]) == []
