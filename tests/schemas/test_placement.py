"""The events that place, rescue and defer work are the same each time they are computed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtape.schemas.events import Deferred, Failed, JobEvent, NewerWork, Placed, decode_newer_work, encode
from jobtape.schemas.events.placement import MAX_RESCUES, deferral, deferred_since, placement, placement_id, rescue
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from tests.schemas.events_of_a_job import (
    JOB,
    ORDER,
    SOURCE,
    Execution,
    at,
    cancelled,
    deferred,
    placed,
    redriven,
    submitted,
)
from tests.schemas.strategies import any_event


def fold(*events: JobEvent) -> Job:
    job: Job | None = None
    for event in events:
        job = evolve(job, event)
    assert job is not None
    return job


A = Execution("a")
LATER = ORDER.model_copy(update={"run_at": at(60)})

WAITING: dict[str, tuple[list[JobEvent], str, int]] = {
    # the tape, then the id of the placement that follows, and when it is due
    "submitted for later": ([submitted(order=LATER)], f"{JOB}/1/1/placed/1", 60),
    "failed, and another attempt follows": ([submitted(), A.retrying(1)], f"{JOB}/1/2/placed/1", 6),
    "redriven": ([submitted(), A.failed(1), redriven(2, 2)], f"{JOB}/2/1/placed/1", 2),
    "redriven before the order was read": ([A.failed(1), redriven(2, 2), submitted()], f"{JOB}/2/1/placed/1", 2),
    "failed before the order was read": ([A.retrying(1), submitted()], f"{JOB}/1/2/placed/1", 6),
    "deferred": ([submitted(), deferred(1, 3)], f"{JOB}/1/1/placed/2", 8),
    "deferred by one worker, started by another that died": (
        [submitted(), A.started(2), deferred(1, 3)],
        f"{JOB}/1/1/placed/2",
        8,
    ),
    "the deferral is read before the placement": (
        [submitted(), A.retrying(1), deferred(1, 7, attempt=2), placed(1, 6, attempt=2)],
        f"{JOB}/1/2/placed/2",
        12,
    ),
}


@pytest.mark.parametrize(("tape", "event_id", "due"), WAITING.values(), ids=WAITING)
def test_waiting_job_is_placed_once(tape: list[JobEvent], event_id: str, due: int) -> None:
    job = fold(*tape)
    assert job.awaits_placement
    assert job.run_at == at(due)
    event = placement(job, source=SOURCE, time=at(due), fence=7)
    assert event is not None
    assert (event.id, event.data.why, event.data.order) == (event_id, "due", ORDER)
    assert placement_id(job) == event_id
    after = evolve(job, event)
    assert (after.state, after.awaits_placement, after.run_at) == ("queued", False, at(due))
    assert evolve(after, event) is after


NOT_WAITING: dict[str, list[JobEvent]] = {
    "submitted for now": [submitted()],
    "started": [submitted(), A.started(1)],
    "succeeded": [submitted(), A.succeeded(1)],
    "failed": [submitted(), A.failed(1)],
    "cancelled before it was due": [submitted(order=LATER), cancelled(1, 2)],
    "cancelled before the next attempt": [submitted(), A.retrying(1), cancelled(1, 2)],
    "cancelled while it was deferred": [submitted(), deferred(1, 3), cancelled(1, 4)],
    "its order was not read": [A.failed(1), redriven(2, 2)],
    "placed, and read before the order": [placed(1, 60), submitted(order=LATER)],
}


@pytest.mark.parametrize("tape", NOT_WAITING.values(), ids=NOT_WAITING)
def test_other_job_does_not_wait(tape: list[JobEvent]) -> None:
    assert not fold(*tape).awaits_placement


def test_imported_job_does_not_wait() -> None:
    assert not fold(submitted(order=LATER).model_copy(update={"imported": "export"})).awaits_placement


@given(st.lists(any_event(), max_size=12))
def test_placement_of_waiting_job_is_accepted(tape: list[JobEvent]) -> None:
    job: Job | None = None
    for event in tape:
        job = evolve(job, event)
        if job.awaits_placement:
            following = placement(job, source=SOURCE, time=at(100), fence=7)
            assert following is not None
            after = evolve(job, following)
            assert after.state == "queued"
            assert not after.awaits_placement


def test_late_deferral_of_earlier_placement_is_rejected() -> None:
    job = fold(submitted(), deferred(1, 3), placed(2, 8))
    assert evolve(job, deferred(1, 3)) is job
    assert evolve(fold(submitted(), deferred(1, 3)), deferred(1, 9)).run_at == at(8)


def test_execution_before_a_deferral_does_not_stop_the_timer() -> None:
    """Its worker lost the delivery, and nobody would place the work again if it died."""
    job = fold(submitted(), A.started(1), deferred(1, 3))
    assert evolve(job, A.progressed(1, 4)) is job
    assert evolve(job, A.started(1)) is job
    assert job.awaits_placement
    assert evolve(job, A.succeeded(5)).state == "succeeded"
    assert evolve(job, Execution("b").started(6)).state == "running"


def test_repeated_deferral_does_not_stop_an_execution() -> None:
    job = fold(submitted(), A.started(1), deferred(1, 3), Execution("b").started(4))
    assert evolve(job, deferred(1, 3)) is job


def test_deferral_ends_with_placement() -> None:
    job = fold(submitted(), deferred(1, 3))
    assert (job.state, job.reason, job.deferred_since) == ("scheduled", "unknown_type", at(3))
    job = evolve(job, placed(2, 8))
    assert (job.state, job.reason, job.deferred_since) == ("queued", None, None)


def test_wait_grows_with_time_since_first_deferral() -> None:
    event: Deferred | None = None
    job = fold(submitted())
    work: Placed | None = None
    waits: list[float] = []
    now = at(0)
    for _ in range(9):
        event = deferral(work or submitted(), "unknown_type", source=SOURCE, time=now)
        waits.append((event.data.until - now).total_seconds())
        job = evolve(job, event)
        now = event.data.until
        work = placement(job, source=SOURCE, time=now, fence=7)
        assert work is not None
        job = evolve(job, work)
    assert waits == [1, 1, 2, 4, 8, 16, 32, 60, 60]
    assert work is not None
    assert deferred_since(work, "unknown_type", now) == at(0)
    assert deferred_since(work, "queue_full", now) == now, "another reason starts the time again"


def test_work_of_newer_version_can_be_deferred() -> None:
    work = placement(fold(submitted(), deferred(1, 3)), source=SOURCE, time=at(8), fence=7)
    assert work is not None
    body = encode(work).replace(b'"schemaversion":2', b'"schemaversion":99').replace(b'"order":{', b'"orders":{')
    newer = decode_newer_work(body)
    assert isinstance(newer, NewerWork)
    expected = deferral(work, "unknown_type", source=SOURCE, time=at(9))
    assert deferral(newer, "unknown_type", source=SOURCE, time=at(9)) == expected
    assert expected.data.since == at(3)


def test_lost_work_is_rescued_three_times_then_run_fails() -> None:
    job = fold(submitted(), A.started(1))
    for n in range(2, MAX_RESCUES + 2):
        event = rescue(job, "lost", source=SOURCE, time=at(n), fence=7)
        assert isinstance(event, Placed)
        assert (event.data.n, event.data.lost_execution) == (n, "a" if n == 2 else None)
        assert event == rescue(job, "lost", source=SOURCE, time=at(n), fence=7), (
            "the same id, however often it is found"
        )
        job = evolve(job, event)
    end = rescue(job, "lost", source=SOURCE, time=at(9), fence=7)
    assert isinstance(end, Failed)
    assert end.id == f"{JOB}/1/1/failed/lost"
    ended = evolve(job, end)
    assert (ended.state, ended.reason) == ("failed", "lost")
    assert "redrive" in end.data.error.message


def test_deferrals_and_retries_are_no_rescues() -> None:
    job = fold(submitted(), deferred(1, 1), placed(2, 6, why="due"), A.retrying(7), placed(1, 12, attempt=2))
    assert (job.rescues, job.placed, job.attempt) == (0, 1, 2)


@pytest.mark.parametrize(("why", "reason"), [("lost", "lost"), ("given_up", "crash_loop")])
def test_failure_reason_follows_cause(why: str, reason: str) -> None:
    job = replace(fold(submitted()), rescues=MAX_RESCUES)
    event = rescue(job, why, source=SOURCE, time=at(1), fence=7)  # type: ignore[arg-type]
    assert isinstance(event, Failed)
    assert event.data.reason == reason


def test_rescue_without_order_returns_none() -> None:
    job = fold(A.started(1))
    assert job.order is None
    assert rescue(job, "lost", source=SOURCE, time=at(2), fence=7) is None


def test_order_of_job_has_no_run_at() -> None:
    order = ORDER.model_copy(update={"labels": {"a": "b"}, "run_at": at(500), "correlation_id": "c", "reply_to": "r"})
    assert fold(submitted(order=order)).order == order.model_copy(update={"run_at": None})
