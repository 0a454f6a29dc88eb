"""Shadow runs: they name the jobs that end differently with today's handlers, and change nothing."""

import asyncio
import time
from typing import Any

import pytest

from jobtape import Context, job
from jobtape.builtin.shadow import shadow
from jobtape.consumer.outcome import Success
from jobtape.consumer.replays.long_task import Interrupted, TaskSlice
from jobtape.consumer.replays.outcome_kinds import changes
from jobtape.consumer.replays.shadow import Shadow, ShadowRun
from jobtape.jobs import JobType
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.job import Job, JobState
from jobtape.view.store import JobQuery, Store
from tests.view.samples import record, submitted, succeeded


@pytest.fixture
def filled(store: Store) -> Store:
    """A view with thirty jobs whose handler doubled a number."""
    assert store.create_checkpoint()
    assert store.take_lease("me", 60)
    tape: list[Any] = [submitted(n) for n in range(30)]
    record(store, *tape, *(succeeded(event, 2 * n) for n, event in enumerate(tape)))
    return store


@job("add")
def wrong_for_tens(ctx: Context, x: int) -> int:
    assert ctx.shadow
    ctx.progress(0.5)
    return 2 * x + (x % 10 == 0)


@job("add")
async def right(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


@job("add")
def raises(x: int) -> int:
    raise ValueError(str(x))


@job("add", timeout=0.05)
def never_ends(x: int) -> int:
    time.sleep(30)
    return x


@job("add", timeout=900)
def never_ends_by_its_own(x: int) -> int:
    time.sleep(30)
    return x


@job("add", timeout=900)
def slow_for_27(x: int) -> int:
    if x == 27:
        time.sleep(1.0)
    return 2 * x


def task_slice(seconds: float = 60.0) -> TaskSlice:
    return TaskSlice(lambda fraction, words: None, time.monotonic() + seconds, "jobs")


def run(
    store: Store, *types: JobType, limit: int = 1000, seconds: float = 60.0, name: str = "s/1", longest: float = 60.0
) -> dict[str, Any]:
    query = JobQuery(states=[JobState.SUCCEEDED], limit=limit)
    wanted = Shadow(name, query, longest)
    return ShadowRun(store, {each.name: each for each in types}, wanted, task_slice(seconds)).run()


def test_jobs_with_another_result_are_named(filled: Store) -> None:
    before = (filled.history(), filled.list_jobs(JobQuery()), filled.counts())
    found = run(filled, wrong_for_tens)
    expected = [each.id for each in filled.list_jobs(JobQuery()) if each.payload and each.payload["x"] % 10 == 0]
    assert (found["jobs"], found["same"], found["different"], found["more"]) == (
        30,
        27,
        {each: [0] for each in expected},
        0,
    )
    examples = [{"job": each, "then": 2 * n, "now": 2 * n + 1} for each, n in zip(expected, (20, 10, 0), strict=True)]
    kind = {"type": "add", "path": "result", "then": "number", "now": "number", "jobs": 3, "examples": examples}
    assert found["kinds"] == [kind]
    assert (filled.history(), filled.list_jobs(JobQuery()), filled.counts()) == before


def test_same_handler_gives_no_difference(filled: Store) -> None:
    assert run(filled, right)["different"] == {}


def test_errors_and_timeouts_are_differences(filled: Store) -> None:
    [kind] = run(filled, raises, limit=3)["kinds"]
    assert (kind["path"], kind["then"], kind["now"], kind["jobs"]) == ("", "succeeded", "ValueError", 3)
    assert kind["examples"][0]["now"] == "ValueError: 29"
    [kind] = run(filled, never_ends, limit=1, name="s/2")["kinds"]
    assert "did not end" in kind["examples"][0]["now"]
    [kind] = run(filled, never_ends_by_its_own, limit=1, name="s/3", longest=0.1)["kinds"]
    assert "within 0.1 s" in kind["examples"][0]["now"]


THEN = {"items": [{"price": 1, "name": "a"}, {"price": 2}], "paid": True, "note": None}
NOW = {"note": "n", "items": [{"price": "1", "name": "b"}, {"price": "2"}, {"price": 3}], "paid": True, "new": [1]}


def test_differences_are_grouped_by_place_and_kind() -> None:
    past = Job("1", "add", JobState.SUCCEEDED, 1, 1, result=THEN)
    found = [(each.path, each.then, each.now, each.values) for each in changes(past, Success(NOW))]
    assert found == [
        ("result.items[].price", "number", "text", {"then": 1, "now": "1"}),
        ("result.items[].name", "text", "text", {"then": "a", "now": "b"}),
        ("result.items[]", "absent", "object", {"now": {"price": 3}}),
        ("result.note", "null", "text", {"then": None, "now": "n"}),
        ("result.new", "absent", "list", {"now": [1]}),
    ]
    assert changes(past, Success(dict(reversed(THEN.items())))) == []


def test_unknown_job_types_are_counted(filled: Store) -> None:
    found = run(filled)
    assert (found["jobs"], found["unknown"], found["different"]) == (30, 30, {})


@pytest.mark.parametrize(("tries", "different"), [(1, 3), (2, 4)])
def test_interrupted_run_continues_and_names_a_job_that_killed_it_twice(
    filled: Store, tries: int, different: int
) -> None:
    with pytest.raises(Interrupted):
        run(filled, wrong_for_tens, seconds=-1)
    state = filled.tasks.begin("s/1", {})
    assert state is not None
    assert state["jobs"] == 1
    doing = filled.list_jobs(JobQuery(before=state["before"], limit=1))[0]
    assert filled.tasks.move("s/1", state, {**state, "doing": doing.id, "tries": tries})
    found = run(filled, wrong_for_tens)
    assert found["jobs"] == 30
    assert (doing.id in found["different"]) == (tries == 2)
    assert len(found["different"]) == different


def test_job_without_enough_time_runs_again_in_the_next_slice(filled: Store) -> None:
    with pytest.raises(Interrupted, match="too short"):
        run(filled, slow_for_27, seconds=0.5)
    state = filled.tasks.begin("s/1", {})
    assert state is not None
    assert (state["jobs"], state["doing"], state["different"]) == (2, None, {})
    found = run(filled, slow_for_27)
    assert (found["jobs"], found["same"], found["different"]) == (30, 30, {})


def test_progress_ends_at_one_with_fewer_jobs_than_the_limit(filled: Store) -> None:
    delivered: list[float] = []
    reporting = TaskSlice(lambda fraction, words: delivered.append(fraction), time.monotonic() + 60, "jobs")
    ShadowRun(
        filled, {"add": right}, Shadow("s", JobQuery(states=[JobState.SUCCEEDED], limit=1000), 60.0), reporting
    ).run()
    assert (delivered[14], delivered[-1]) == (0.5, 1.0)


def test_complete_run_does_not_run_again(filled: Store) -> None:
    assert run(filled, right)["same"] == 30
    assert run(filled, raises)["same"] == 30
    assert run(filled, raises, name="s/2")["same"] == 0


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        ({"limit": 0}, "greater than or equal to 1"),
        ({"since": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"}, "later than until"),
    ],
    ids=["limit", "times"],
)
def test_invalid_request_is_refused(request_: dict[str, Any], fault: str) -> None:
    with pytest.raises(PayloadInvalid, match=fault):
        shadow.arguments(request_)
