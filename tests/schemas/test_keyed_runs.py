"""Of the jobs with a unique key or a debounce key, those are kept that an independent simulation keeps."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape import Debounce, Unique, job
from jobtape.schemas.errors import JobTypeInvalid, PayloadInvalid
from jobtape.schemas.job import JobRun, JobState
from jobtape.schemas.keyed_runs import GatedRun, KeyedRuns, RunToCancel
from jobtape.schemas.queueing.gates import Conflict, DebounceKey, Gate, Gates, UniqueKey
from tests.schemas.events_of_a_job import at

STEPS = st.lists(
    st.tuples(st.sampled_from(["submit", "place", "start", "retry", "end", "redrive", "fold"]), st.integers(0, 5)),
    max_size=60,
)
CONFLICTS: tuple[Conflict, Conflict] = ("return", "replace")


@dataclass
class Run:
    """A run of the reference, which knows nothing of runs."""

    id: str
    conflict: Conflict
    state: str = "held"
    run: int = 1
    verdict: tuple[str, str] | None = None


@dataclass
class Reference:
    """What each step does to the jobs of one key: the later job goes, or the earlier ones that are not running."""

    runs: list[Run] = field(default_factory=list)
    """The open ones, in their order."""

    def settle(self) -> None:
        for n, run in enumerate(self.runs):
            earlier = [each for each in self.runs[:n] if each.verdict is None]
            if run.verdict is not None or run.state != "held" or not earlier:
                continue
            if run.conflict == "return":
                run.verdict = "duplicate", earlier[-1].id
            else:
                for each in earlier:
                    if each.state != "running":
                        each.verdict = "replaced", run.id


@given(steps=STEPS)
def test_runs_are_closed_as_in_a_simulation(steps: list[tuple[str, int]]) -> None:
    """A run whose end was decided stays open until its ``cancelled`` is folded, and may end otherwise before."""
    reference, keys, cursor = Reference(), KeyedRuns(), 0
    jobs: dict[str, Run] = {}
    found: dict[tuple[str, int], tuple[str, str]] = {}

    def note(run: Run) -> None:
        gates = Gates(unique=UniqueKey(name="u", conflict=run.conflict))
        state = JobState("cancelled" if run.state == "ended" else run.state)
        gated = GatedRun(JobRun(run.id, "add", run.run, 1, None), gates, state, at(0), cursor, run.state != "ended")
        for cancelling in keys.note([gated]):
            key = cancelling.gated.run.id, cancelling.gated.run.run
            assert key not in found, "each is decided once"
            found[key] = cancelling.reason, cancelling.instead

    def expected() -> dict[str, tuple[str, str]]:
        return {each.id: each.verdict for each in reference.runs if each.verdict is not None}

    for what, n in steps:
        cursor += 1
        pick = reference.runs[n % len(reference.runs)] if reference.runs else None
        ended = [run for run in jobs.values() if run.state == "ended"]
        if what == "submit":
            run = jobs[f"j{cursor}"] = Run(f"j{cursor}", CONFLICTS[n % 2])
            reference.runs.append(run)
        elif what == "redrive" and ended:
            run = ended[n % len(ended)]
            run.state, run.run, run.verdict = "held", run.run + 1, None
            reference.runs.append(run)
        elif what == "fold" and (decided := [each for each in reference.runs if each.verdict is not None]):
            run = decided[n % len(decided)]
            run.state = "ended"
            reference.runs.remove(run)
        elif pick is not None and what == "place" and pick is reference.runs[0] and pick.state == "held":
            if pick.verdict is not None:
                continue  # a job whose end was decided is not placed
            run = pick
            run.state = "queued"
        elif pick is not None and (what, pick.state) in (("start", "queued"), ("retry", "running")):
            run = pick
            run.state = "running" if what == "start" else "retrying"
        elif pick is not None and what == "end":
            run = pick
            run.state = "ended"
            reference.runs.remove(run)
        else:
            continue
        reference.settle()
        note(run)
        now = {run.id: run.run for run in reference.runs}
        assert {job_id: each for (job_id, number), each in found.items() if now.get(job_id) == number} == expected()
        assert all(keys.will_cancel(job_id) for job_id in expected())
    open_runs = [run for run in reference.runs if run.verdict is None]
    waiting = [run for run in open_runs if run.state == "held"]
    assert len(open_runs) <= 2 and len(waiting) <= 1


def winners(times: list[int], seconds: int, at_most: int | None) -> dict[int, int | None]:
    """For each job that comes at one of ``times``, the number of the one that runs instead of it at first, or None."""
    found: dict[int, int | None] = {}
    first = 0
    for n, time in enumerate(times):
        found[n] = None
        if n > 0:
            ends = times[n - 1] + seconds
            if at_most is not None:
                ends = min(ends, times[first] + at_most)
            if time < ends:
                found[n - 1] = n
            else:
                first = n
    return found


@given(
    pauses=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    at_most=st.none() | st.integers(10, 60),
    take_over=st.sets(st.integers(0, 40)),
)
def test_last_job_of_a_debounce_key_runs_as_in_a_simulation(
    pauses: list[int], at_most: int | None, take_over: set[int]
) -> None:
    """Also where other projectors take over, with what was noted."""
    gates = Gates(debounce=DebounceKey(name="d", seconds=10, at_most=at_most))
    times = [sum(pauses[: n + 1]) for n in range(len(pauses))]
    runs = [
        GatedRun(JobRun(str(n), "add", 1, 1, None), gates, JobState.HELD, at(time), n) for n, time in enumerate(times)
    ]
    keys = KeyedRuns()
    found: dict[int, int | None] = {}
    noted: dict[Gate, datetime] = {}
    waiting: GatedRun | None = None
    for n, gated in enumerate(runs):
        if waiting is not None and (opens := keys.opens_at(waiting.run.id, gates)) is not None and opens <= gated.due:
            keys.end_debounce(gates, waiting.run.id)
            waiting = None
        if n in take_over:
            keys = KeyedRuns(dict(noted))
            assert keys.note([] if waiting is None else [waiting]) == []
        cancelled_runs: list[RunToCancel] = keys.note([gated])
        assert [each.reason for each in cancelled_runs] == ["debounced"] * len(cancelled_runs)
        found |= {int(each.gated.run.id): int(each.instead) for each in cancelled_runs}
        found[n] = None
        noted |= keys.debounce_starts(cancelled_runs)
        assert keys.opens_at(gated.run.id, gates) is not None
        waiting = gated
    assert found == winners(times, 10, at_most)


@job("charge", unique=Unique(by=["order.id", "label:tenant"], conflict="replace", name="orders"))
def charge(order: dict[str, Any]) -> None:
    """Do nothing."""


@job("report", unique=Unique())
def report() -> None:
    """Do nothing."""


def test_unique_key_is_made_of_all_its_fields() -> None:
    found = charge.declared_gates.gates({"order": {"id": 7}}, {"tenant": "x"})
    assert found == Gates(unique=UniqueKey(name="orders", key="order.id=7, label:tenant=x", conflict="replace"))
    assert found.texts() == ["unique key orders for order.id=7, label:tenant=x"]
    assert charge.declared_gates.gates({"order": {"id": 7}}, {}) is None
    forged = {
        charge.declared_gates.gates({"order": {"id": order}}, {"tenant": tenant})
        for order, tenant in [
            ("x", "b, label:tenant=c"),
            ("x, label:tenant=b", "c"),
            ("x\\, label:tenant=b", "c"),
            ("x\\", "b, label:tenant=c"),
        ]
    }
    assert len(forged) == 4, "no value looks like the end of another one"
    assert report.declared_gates.gates({}, {}) == Gates(unique=UniqueKey(name="report"))


def test_unique_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(PayloadInvalid, match="more than 200 characters"):
        charge.declared_gates.gates({"order": {"id": "x" * 150}}, {"tenant": "y" * 100})


@pytest.mark.parametrize(
    ("unique", "message"),
    [
        (Unique(by=["costumer"]), "'costumer' is no parameter"),
        (Unique(by="customer"), r"Unique\(by=...\) is a list of names, like \['customer'\]"),
        (Unique(conflict="drop"), "is 'return' or 'replace', not 'drop'"),  # type: ignore[arg-type]
        (Unique(name="a b"), "the name of the keys must match"),
    ],
)
def test_unique_key_that_no_payload_can_have_is_refused(unique: Unique, message: str) -> None:
    with pytest.raises(JobTypeInvalid, match=message):

        @job("rules", unique=unique)
        def handler(customer: str) -> None:
            pass


def test_jobs_that_only_return_have_one_group_for_all_keys() -> None:
    def group(conflict: Conflict, key: str) -> str:
        return Gates(unique=UniqueKey(name="u", key=key, conflict=conflict)).group("x")

    assert group("return", "a") == group("return", "b")
    assert group("replace", "a") != group("replace", "b")


@job("index", unique=Unique(by=["doc"], conflict="replace"), debounce=Debounce(5, by=["doc"], at_most=60))
def index(doc: str) -> None:
    """Do nothing."""


def test_debounce_key_is_made_of_its_fields() -> None:
    found = index.declared_gates.gates({"doc": "a"}, {})
    assert found is not None
    assert found.debounce == DebounceKey(name="index", key="doc=a", seconds=5, at_most=60)
    assert found.texts() == ["unique key index for doc=a", "5 s without another index for doc=a"]


@pytest.mark.parametrize(
    ("debounce", "message"),
    [
        (Debounce(0), "are above 0"),
        (Debounce(10, at_most=5), "at_most is not below seconds"),
        (Debounce(1, by=["doc"]), "'doc' is no parameter"),
        (Debounce(1, by="customer"), r"Debounce\(by=...\) is a list"),
    ],
)
def test_debounce_that_no_payload_can_follow_is_refused(debounce: Debounce, message: str) -> None:
    with pytest.raises(JobTypeInvalid, match=message):

        @job("rules", debounce=debounce)
        def handler(customer: str) -> None:
            pass


def test_debounce_and_returning_unique_key_contradict_each_other() -> None:
    with pytest.raises(JobTypeInvalid, match="use conflict='replace'"):

        @job("rules", unique=Unique(), debounce=Debounce(1))
        def handler() -> None:
            pass
