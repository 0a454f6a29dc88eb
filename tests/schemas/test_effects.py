"""Effects of accepted events and rescues of lost work are the same each time they are computed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.effects import MAX_RESCUES, effects_of, may_be_effect, order_of, rescue
from jobtape.schemas.events import Failed, JobEvent, Requeued
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from tests.schemas.events_of_a_job import JOB, ORDER, SOURCE, Execution, at, cancelled, redriven, requeued, submitted
from tests.schemas.strategies import any_event


def fold(*events: JobEvent) -> Job:
    job: Job | None = None
    for event in events:
        job = evolve(job, event)
    assert job is not None
    return job


def effects(*events: JobEvent) -> list[Requeued | Failed]:
    """The effects of the last event."""
    before = fold(*events[:-1]) if len(events) > 1 else None
    return [effect.event for effect in effects_of(before, events[-1], evolve(before, events[-1]))]


def test_redriven_places_work() -> None:
    (event,) = effects(submitted(), Execution("a").failed(1), redriven(2, 2))
    assert isinstance(event, Requeued)
    assert (event.id, event.causationid, event.subject) == (f"{JOB}/2/requeued/1", f"{JOB}/2/redriven", JOB)
    assert (event.data.n, event.data.why, event.data.attempt, event.data.order) == (1, "redriven", 1, ORDER)
    assert may_be_effect(event)


def test_rejected_redriven_has_no_effect() -> None:
    ended: list[JobEvent] = [submitted(), Execution("a").failed(1), redriven(2, 2)]
    assert effects(*ended, redriven(2, 3)) == []
    assert effects(*ended, requeued(1, run=2), redriven(2, 3)) == []
    assert effects(*ended, redriven(1, 3)) == []


def test_other_events_have_no_effect() -> None:
    first, second = Execution("a"), Execution("b", run=2)
    tape: list[JobEvent] = [
        submitted(),
        first.started(),
        first.retrying(),
        first.failed(),
        redriven(2),
        requeued(1, run=2),
    ]
    tape += [second.started(), second.progressed(1), second.succeeded(), cancelled(2)]
    for length, event in enumerate(tape, 1):
        assert bool(effects(*tape[:length])) == (event.name == "redriven")


def test_late_submitted_places_work_of_redriven_run() -> None:
    failed = Execution("a").failed(1)
    assert effects(failed, redriven(2)) == []
    (event,) = effects(failed, redriven(2), submitted())
    assert event.id == f"{JOB}/2/requeued/1"


@given(st.lists(any_event(), max_size=12))
def test_event_of_effect_stops_effect(tape: list[JobEvent]) -> None:
    """When the effect's event is on the tape, it is not needed any more."""
    job: Job | None = None
    for event in tape:
        after = evolve(job, event)
        for effect in effects_of(job, event, after):
            placed = evolve(after, effect.event)
            assert placed is not after
            assert effects_of(after, effect.event, placed) == ()
            assert effect.keys == (f"run.{after.queue}",)
        job = after


def test_lost_work_is_rescued_three_times_then_run_fails() -> None:
    job = fold(submitted(), Execution("a").started(1))
    for n in range(2, MAX_RESCUES + 2):
        effect = rescue(job, "lost", source=SOURCE, time=at(n))
        assert effect is not None and isinstance(effect.event, Requeued)
        assert (effect.event.data.n, effect.event.data.lost_execution) == (n, "a" if n == 2 else None)
        assert effect == rescue(job, "lost", source=SOURCE, time=at(n)), "the same id, however often it is found"
        job = evolve(job, effect.event)
    effect = rescue(job, "lost", source=SOURCE, time=at(9))
    assert effect is not None and isinstance(effect.event, Failed) and may_be_effect(effect.event)
    assert (effect.event.id, effect.keys) == (f"{JOB}/1/1/failed/lost", ())
    ended = evolve(job, effect.event)
    assert (ended.state, ended.reason) == ("failed", "lost")
    assert "redrive" in effect.event.data.error.message


@pytest.mark.parametrize(("why", "reason"), [("lost", "lost"), ("given_up", "crash_loop")])
def test_failure_reason_follows_cause(why: str, reason: str) -> None:
    job = replace(fold(submitted()), placed=MAX_RESCUES + 1)
    effect = rescue(job, why, source=SOURCE, time=at(1))  # type: ignore[arg-type]
    assert effect is not None and isinstance(effect.event, Failed)
    assert effect.event.data.reason == reason


def test_lost_retry_is_rescued_as_next_attempt() -> None:
    effect = rescue(fold(submitted(), Execution("a").retrying(1)), "lost", source=SOURCE, time=at(2))
    assert effect is not None
    assert effect.event.data.attempt == 2


def test_rescue_without_order_returns_none() -> None:
    job = fold(Execution("a").started(1))
    assert order_of(job) is None
    assert rescue(job, "lost", source=SOURCE, time=at(2)) is None


def test_order_of_job_has_no_run_at() -> None:
    order = ORDER.model_copy(update={"labels": {"a": "b"}, "run_at": at(500), "correlation_id": "c", "reply_to": "r"})
    assert order_of(fold(submitted(order=order))) == order.model_copy(update={"run_at": None})
