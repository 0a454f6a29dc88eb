"""Slots are counted, rates hold in every window, and a job type's rules find the keys of a submission."""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.jobs import job
from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid
from jobtape.schemas.job_types.declared_gates import Concurrency, Rate
from jobtape.schemas.queueing.gates import CATCH_UP, SLACK, Gates, GateState, Limit

ORDERED = Gates(ordering_key="a")


@given(
    at_most=st.integers(1, 20),
    per=st.floats(0.1, 5),
    late=st.lists(st.floats(0, 1), min_size=60, max_size=150),
    most_late=st.sampled_from([0.001, 0.3, 2.0]),
    pages=st.booleans(),
)
def test_rate_holds_in_every_window_however_late_its_placements_are(
    at_most: int, per: float, late: list[float], most_late: float, pages: bool
) -> None:
    """The clock moves to the time that the state names, plus some lateness before and after the decision."""
    gates = rate(at_most, per)
    state, now = GateState(0.0), 0.0
    placed: list[float] = []
    for n, each in enumerate(late):
        closed = state.closed_gate(gates, now)
        if closed is None:
            state.take_slots(str(n), gates, now, since=0.0)
            if not pages:  # otherwise several in one go
                now += each * most_late / 10
            state.delay(gates, now)
            placed.append(now)
        else:
            assert closed[1] is not None and closed[1] > now
            now = closed[1] + each * most_late
    assert_holds(placed, at_most, per)


def assert_holds(placed: list[float], at_most: int, per: float) -> None:
    """Check every window by a count that knows no rate algorithm."""
    for start in placed:
        end = bisect_left(placed, start + per * 0.999_999)
        assert end - bisect_left(placed, start) <= at_most


@given(
    at_most=st.integers(1, 60), per=st.floats(0.5, 5), late=st.lists(st.floats(0, 0.009), min_size=300, max_size=300)
)
def test_rate_is_used_although_each_cycle_is_late(at_most: int, per: float, late: list[float]) -> None:
    gates, state, now = rate(at_most, per), GateState(0.0), 0.0
    placed: list[float] = []
    for n, each in enumerate(late):
        while (closed := state.closed_gate(gates, now)) is not None:
            assert closed[1] is not None
            now = closed[1] + each
        state.take_slots(str(n), gates, now, since=0.0)
        placed.append(now)
    # Nothing is lost but the spacing that makes up for lateness, and what the last placements are late.
    assert placed[-1] - placed[0] <= (len(placed) - 1) * (per + SLACK) / at_most + 0.01 * (1 + per)


def test_rate_makes_up_a_long_pause_within_its_windows() -> None:
    gates, state, now = rate(50, 1.0), GateState(0.0), 0.0
    placed: list[float] = []
    while len(placed) < 3000:
        closed = state.closed_gate(gates, now)
        if closed is None:
            state.take_slots(str(len(placed)), gates, now, since=0.0)
            placed.append(now)
            if len(placed) % 1000 == 500:
                now += 0.3
        else:
            assert closed[1] is not None
            now = closed[1] + 0.003
    assert_holds(placed, 50, 1.0)
    assert 49 <= (len(placed) - 1) / (placed[-1] - placed[0]) <= 50


def test_unused_rate_saves_nothing_up() -> None:
    gates, state = rate(50, 1.0), GateState(0.0)
    state.take_slots("1", gates, 10.0)
    state.take_slots("2", gates, 20.0)
    found = state.closed_gate(gates, 20.0)
    assert found is not None and found[1] == pytest.approx(20.02, abs=0.001)


def test_large_rate_needs_little_memory_and_holds() -> None:
    gates, state, now = rate(10_000, 10.0), GateState(0.0), 0.0
    placed: list[float] = []
    while len(placed) < 25_000:
        while state.closed_gate(gates, now) is None:
            state.take_slots("1", gates, now, since=0.0)
            placed.append(now)
        now += 0.007
    within = zip(placed, placed[10_000:], strict=False)
    assert min(last - first for first, last in within) >= 10.0
    assert 985 <= (len(placed) - 1) / (placed[-1] - placed[0]) <= 1000
    assert len(state._rates["mail per 10 s", ""]._times) <= 300


@given(
    at_most=st.integers(1, 20),
    per=st.floats(0.1, 30),
    late=st.lists(st.floats(0, 0.4), max_size=60),
    take_over_at=st.integers(0, 59),
)
def test_rate_holds_across_a_take_over(at_most: int, per: float, late: list[float], take_over_at: int) -> None:
    gates, state, now = rate(at_most, per), GateState(0.0), 0.0
    placed: list[float] = []
    for n, each in enumerate(late):
        if n == take_over_at:
            noted = state.latest_of_slow_rates(gates)
            state = GateState(now)
            for gate, time in noted.items():
                state.note_latest(gate, time)
        while (closed := state.closed_gate(gates, now)) is not None:
            assert closed[1] is not None
            now = closed[1] + each
        state.take_slots(str(n), gates, now, since=0.0)
        placed.append(now)
    assert_holds(placed, at_most, per)


@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.floats(0, 300)), max_size=80),
    slow=st.sampled_from([60.0, 3600.0, 7 * 86_400.0]),
)
def test_rates_are_forgotten_only_when_they_would_be_open(steps: list[tuple[int, bool, float]], slow: float) -> None:
    """A state that forgets as soon as it may decides as one that never forgets."""
    forgetful, other, now = GateState(0.0), GateState(0.0), 100.0
    for n, (key, is_slow, pause) in enumerate(steps):
        now += pause
        forgetful._most_rates = 0
        gates = Gates(limits=(Limit(name="mail", key=str(key), at_most=3, per=slow if is_slow else 2.0),))
        closed = forgetful.closed_gate(gates, now)
        assert closed == other.closed_gate(gates, now)
        if closed is None:
            forgetful.take_slots(str(n), gates, now)
            other.take_slots(str(n), gates, now)


def test_rates_of_many_keys_need_no_more_memory_than_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    state = GateState(0.0)
    state._most_rates = 100
    monkeypatch.setattr("jobtape.schemas.queueing.gates._RATES_KEPT", 100)
    weekly = Gates(limits=(Limit(name="weekly", key="a", at_most=1, per=7 * 86_400),))
    state.take_slots("first", weekly, 0.0)
    for n in range(5000):
        state.take_slots(str(n), Gates(limits=(Limit(name="mail", key=str(n), at_most=1, per=5.0),)), float(n))
    assert len(state._rates) <= 200
    closed = state.closed_gate(weekly, 86_400.0)
    assert closed is not None and closed[1] == pytest.approx(7 * 86_400, abs=1)


def rate(at_most: int, per: float) -> Gates:
    return Gates(limits=(Limit(name="mail", at_most=at_most, per=per),))


def test_fast_rate_counts_what_may_have_been_placed_before_a_take_over() -> None:
    found = GateState(100.0).closed_gate(rate(2, 1.0), 100.0)
    assert found is not None and found[1] == pytest.approx(100.5 + CATCH_UP, abs=0.1)


def test_slow_rate_counts_the_placement_that_was_noted() -> None:
    assert GateState(100.0).closed_gate(rate(1, 3600), 100.0) is None
    before, after = GateState(0.0), GateState(100.0)
    before.take_slots("1", rate(1, 3600), 50.0)
    for gate, time in before.latest_of_slow_rates(rate(1, 3600)).items():
        after.note_latest(gate, time)
    found = after.closed_gate(rate(1, 3600), 100.0)
    assert found is not None and found[1] == pytest.approx(3650 + CATCH_UP, abs=0.1)
    assert GateState(0.0).latest_of_slow_rates(rate(100, 1)) == {}


def test_changed_rate_holds_from_the_latest_placement_on() -> None:
    gates, state = rate(1, 3600), GateState(0.0)
    state.take_slots("1", gates, 10.0)
    state.new_limits = {("mail", "", True): Limit(name="mail", at_most=100, per=1.0)}
    assert state.closed_gate(gates, 11.0) is None


def test_further_attempt_is_counted_for_the_rate() -> None:
    gates, state = rate(1, 10), GateState(0.0)
    state.charge(gates, 5.0)
    found = state.closed_gate(gates, 6.0)
    assert found is not None and found[1] == pytest.approx(15.0, abs=0.1)


def test_slots_are_freed_by_their_holder_only() -> None:
    gates = Gates(ordering_key="a", limits=(Limit(name="mail", key="x", at_most=2),))
    state = GateState(0.0)
    state.take_slots("1", gates, 0.0)
    assert state.closed_gate(gates, 0.0) == (("", "a"), None)
    other = gates.model_copy(update={"ordering_key": "b"})
    state.take_slots("2", other, 0.0)
    third = gates.model_copy(update={"ordering_key": "c"})
    assert state.closed_gate(third, 0.0) == (("mail", "x"), None)
    assert state.free("unknown") == ()
    # The failed job keeps its ordering key, and gives up the rest.
    assert state.set_slots("1", gates.slots(ended=True)) == [("mail", "x")]
    assert state.closed_gate(third, 0.0) is None
    assert state.closed_gate(gates, 0.0) == (("", "a"), None)
    assert state.free("1") == (("", "a"),)
    assert state.closed_gate(gates, 0.0) is None


def test_jobs_with_the_same_ordering_key_are_one_group_whatever_their_limits() -> None:
    limited = Gates(ordering_key="a", limits=(Limit(name="mail", at_most=2),))
    assert ORDERED.group("x") == limited.group("y") != Gates(ordering_key="b").group("x")
    unordered = [Gates(limits=(Limit(name="mail", key=key, at_most=2),), turn=turn) for key in "ab" for turn in "cd"]
    assert len({gates.group(kind) for gates in unordered for kind in "xy"}) == 8


@job(
    "charge",
    ordering_key="order.customer",
    on_failure="hold",
    limits=[Concurrency(5, by="label:tenant"), Rate(100, per=60, by="fast", name="api")],
    take_turns="label:tenant",
)
def charge(order: dict[str, Any], fast: bool | None = None) -> None:
    """Do nothing."""


def test_rules_find_keys_in_payload_and_labels() -> None:
    found = charge.declared_gates.gates({"order": {"customer": 7}, "fast": True}, {"tenant": "x"})
    assert found == Gates(
        ordering_key="order.customer=7",
        hold=True,
        limits=(
            Limit(name="charge", key="label:tenant=x", at_most=5),
            Limit(name="api", key="fast=true", at_most=100, per=60.0),
        ),
        turn="label:tenant=x",
    )
    assert charge.declared_gates.gates({"order": {}, "fast": None}, {}) is None
    whole = charge.declared_gates.gates({"order": {"customer": 7.0}}, {})
    assert whole is not None and whole.ordering_key == "order.customer=7", "the handler gets the same number"
    named = charge.declared_gates.gates({"order": {}}, {}, "mine")
    assert named is not None and named.ordering_key == "mine"


@pytest.mark.parametrize("value", [[1], {"a": 1}, "x" * 200])
def test_value_that_cannot_be_a_key_is_refused(value: Any) -> None:
    with pytest.raises(PayloadInvalid, match=r"order\.customer is a key of the job") as caught:
        charge.declared_gates.gates({"order": {"customer": value}}, {})
    assert caught.value.errors[0]["loc"] == ("order", "customer")


def _of(**rules: Any) -> Callable[[], Any]:
    def declare() -> Any:
        @job("rules", **rules)
        def handler(customer: str) -> None:
            pass

        return handler

    return declare


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (_of(ordering_key="costumer"), "'costumer' is no parameter of the handler"),
        (_of(limits=[Concurrency(1, by="x.y")]), "by='x.y' is no parameter"),
        (_of(limits=[Concurrency(0)]), "at_most is at least 1"),
        (_of(limits=[Rate(1, per=0)]), "per is above 0 and at most 2592000 s"),
        (_of(limits=[Rate(1, per=31 * 86_400)]), "per is above 0 and at most"),
        (_of(limits=[Rate(1, per=float("nan"))]), "per is above 0 and at most"),
        (_of(limits=[Rate(1), Rate(5, per=60)]), "two limits of the same kind have the same name"),
        (_of(limits=[Concurrency(1, name="a b")]), "the name of a limit must match"),
        (_of(limits=[Rate(1, name=str(n)) for n in range(9)]), "at most 8 limits"),
        (_of(on_failure="stop"), "on_failure is 'continue' or 'hold'"),
    ],
)
def test_rules_that_no_payload_can_follow_are_refused(declare: Callable[[], Any], message: str) -> None:
    with pytest.raises(JobTypeInvalid, match=message):
        declare()
