"""The races that the rules of ``fold`` are for, one by one."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from jobtape.schemas.events import JobEvent
from jobtape.schemas.fold import MAX_SIGNALS, evolve, fold
from jobtape.schemas.job import Job
from jobtape.schemas.queueing.gates import Gates
from tests.schemas.events_of_a_job import (
    JOB,
    ORDER,
    Execution,
    at,
    cancelled,
    placed,
    redriven,
    released,
    signalled,
    submitted,
)

A, B = Execution("b-first"), Execution("a-second")  # the later execution has the smaller id: ids have no order
NEXT = Execution("next", attempt=2)
AGAIN = Execution("again", run=2)


def play(tape: Sequence[JobEvent]) -> Job:
    return fold((event, cursor) for cursor, event in enumerate(tape))[JOB]


WITHIN_A_RUN: dict[str, tuple[list[JobEvent], str, int, str | None]] = {
    "a frozen worker wakes up after the end": (
        [A.started(1), B.started(9), B.succeeded(12), A.failed(20)],
        "succeeded",
        1,
        "by a-second",
    ),
    "two successes: the first": ([A.started(1), B.succeeded(12), A.succeeded(20)], "succeeded", 1, "by a-second"),
    "started overtaken by its own retrying": ([A.retrying(3), A.started(1)], "retrying", 1, None),
    "a closed attempt fails once more": ([A.retrying(3), B.failed(4)], "retrying", 1, None),
    "a closed attempt retries once more": ([A.retrying(3), B.retrying(4)], "retrying", 1, None),
    "a closed attempt succeeds after all": ([A.retrying(3), B.succeeded(4)], "succeeded", 1, "by a-second"),
    "... while the next one runs": (
        [A.retrying(3), NEXT.started(8), B.succeeded(9), NEXT.failed(10)],
        "succeeded",
        2,
        "by a-second",
    ),
    "the retry's copy is quicker than the tape": ([NEXT.started(8), A.retrying(3)], "running", 2, None),
    "... and done before the retry is on the tape": ([NEXT.succeeded(8), A.retrying(3)], "succeeded", 2, "by next"),
    "a retry's copy after the end": ([A.failed(3), B.retrying(4), NEXT.succeeded(9)], "failed", 1, None),
    "cancelled before it succeeded": ([cancelled(1, 2), A.succeeded(3)], "cancelled", 1, None),
    "succeeded before it was cancelled": ([A.succeeded(3), cancelled(1, 4)], "succeeded", 1, "by b-first"),
    "cancelled between attempts": ([A.retrying(3), cancelled(1, 4), NEXT.succeeded(9)], "cancelled", 1, None),
}


@pytest.mark.parametrize(("tape", "state", "attempt", "result"), WITHIN_A_RUN.values(), ids=WITHIN_A_RUN)
def test_races_within_run(tape: list[JobEvent], state: str, attempt: int, result: str | None) -> None:
    for whole in ([submitted(), *tape], [*tape, submitted()], [tape[0], submitted(), *tape[1:]]):
        job = play(whole)
        assert (job.state, job.attempt, job.result) == (state, attempt, result)
        assert job.payload == ORDER.payload


BETWEEN_RUNS: dict[str, tuple[list[JobEvent], str, int]] = {
    "a late success of the old run": ([A.failed(3), redriven(2, 5), A.succeeded(6)], "queued", 2),
    "a late cancel of the old run": ([A.failed(3), redriven(2, 5), cancelled(1, 6)], "queued", 2),
    "quicker than its redriven": ([A.failed(3), AGAIN.started(6), redriven(2, 5)], "running", 2),
    "done before its redriven": ([A.failed(3), AGAIN.succeeded(6), redriven(2, 5)], "succeeded", 2),
    "cancelled before its redriven": ([A.failed(3), cancelled(2, 6), redriven(2, 5)], "cancelled", 2),
    "redriven by two at once": ([A.failed(3), redriven(2, 5), redriven(2, 5)], "queued", 2),
    "the old run's end is lost with the broker's tail": ([A.started(1), redriven(2, 5)], "queued", 2),
    "a whole run is lost": ([A.failed(3), redriven(3, 9)], "queued", 3),
}


@pytest.mark.parametrize(("tape", "state", "run"), BETWEEN_RUNS.values(), ids=BETWEEN_RUNS)
def test_races_between_runs(tape: list[JobEvent], state: str, run: int) -> None:
    job = play([submitted(), *tape])
    assert (job.state, job.run) == (state, run)


PUT_BACK: dict[str, tuple[list[JobEvent], str, int, int]] = {
    # the tape, then state, attempt and placements
    "lost before any event of it": ([placed(2, 9)], "queued", 1, 2),
    "lost while it ran": ([A.started(1), placed(2, 9, lost="b-first")], "queued", 1, 2),
    "... and not dead after all": (
        [A.started(1), placed(2, 9, lost="b-first"), A.progressed(1, 10)],
        "running",
        1,
        2,
    ),
    "... and its start published once more": (
        [A.started(1), placed(2, 9, lost="b-first"), A.started(1)],
        "queued",
        1,
        2,
    ),
    "the work it placed is quicker than the tape": ([B.started(10), placed(2, 9)], "running", 1, 2),
    "... than the tape, when another was given up": (
        [A.started(1), B.started(10), placed(2, 9, lost="b-first")],
        "running",
        1,
        2,
    ),
    "its attempt failed meanwhile": ([A.retrying(8), placed(2, 9)], "retrying", 1, 0),
    "the next attempt runs meanwhile": ([A.retrying(8), NEXT.started(14), placed(2, 9)], "running", 2, 0),
    "done meanwhile": ([A.succeeded(8), placed(2, 9)], "succeeded", 1, 1),
    "cancelled meanwhile": ([cancelled(1, 8), placed(2, 9)], "cancelled", 1, 1),
    "the next attempt's message is lost": ([A.retrying(3), placed(2, 99, attempt=2)], "queued", 2, 2),
    "... and so is its retrying": ([A.started(1), placed(2, 99, attempt=2)], "queued", 2, 2),
    "... and its retrying is late": ([placed(2, 99, attempt=2), A.retrying(3)], "queued", 2, 2),
    "published twice": ([placed(2, 9), A.started(10), placed(2, 9)], "running", 1, 2),
    "published twice, the copy very late": (
        [placed(2, 9), placed(3, 20), A.started(30), placed(2, 9)],
        "running",
        1,
        3,
    ),
    "the third overtakes the second": ([placed(3, 20), placed(2, 9)], "queued", 1, 3),
    "of an old run": ([A.failed(3), redriven(2, 5), placed(2, 9)], "queued", 1, 0),
    "a redrive's": ([A.failed(3), redriven(2, 5), placed(1, 6, run=2)], "queued", 1, 1),
    "... before its redriven": ([A.failed(3), placed(1, 6, run=2), redriven(2, 5)], "queued", 1, 1),
    "... behind the start of its work": (
        [A.failed(3), redriven(2, 5), AGAIN.started(7), placed(1, 6, run=2)],
        "running",
        1,
        1,
    ),
    "... behind the end of its work": (
        [A.failed(3), redriven(2, 5), AGAIN.succeeded(7), placed(1, 6, run=2)],
        "succeeded",
        1,
        0,
    ),
    "... of a run that was cancelled": (
        [A.failed(3), redriven(2, 5), cancelled(2, 6), placed(1, 6, run=2)],
        "cancelled",
        1,
        0,
    ),
}


@pytest.mark.parametrize(("tape", "state", "attempt", "placed"), PUT_BACK.values(), ids=PUT_BACK)
def test_placed_work(tape: list[JobEvent], state: str, attempt: int, placed: int) -> None:
    job = play([submitted(), *tape])
    assert (job.state, job.attempt, job.placed) == (state, attempt, placed)


def test_late_placed_does_not_change_run_at() -> None:
    assert play([submitted(), placed(2, 9)]).run_at == at(9)
    assert play([submitted(), A.retrying(8), placed(2, 9)]).run_at == at(13)
    assert play([submitted(), A.started(8), placed(2, 9)]).run_at == at(0)


def test_placements_are_counted_per_run() -> None:
    assert play([submitted()]).placed == 1
    assert play([placed(2, 9), submitted()]).placed == 2
    assert play([A.started(1), submitted()]).placed == 1
    assert play([submitted(), placed(2, 9), A.failed(10), redriven(2, 12)]).placed == 0
    assert play([A.failed(10), redriven(2, 12), submitted()]).placed == 0


def test_new_run_has_no_status_of_old_run() -> None:
    job = play([submitted(), A.started(1), A.progressed(4, 2), A.failed(3), redriven(2, 5)])
    assert (job.error, job.reason, job.progress, job.started_at, job.finished_at) == (None, None, None, None, None)
    assert (job.run_at, job.payload, job.submitted_at) == (at(5), ORDER.payload, at(0))


def test_run_opened_by_worker_has_no_old_retry_time() -> None:
    assert play([submitted(), A.retrying(3), NEXT.failed(20), AGAIN.started(30)]).run_at == at(30)


def test_repeated_started_of_earlier_execution_is_rejected() -> None:
    tape: list[JobEvent] = [submitted(), A.started(1), A.progressed(3, 2), B.started(40), B.progressed(1, 41)]
    job = play(tape)
    assert (job.execution, job.started_at, job.progress_n) == ("a-second", at(40), 1)
    late: JobEvent
    for late in (A.started(1), A.progressed(3, 2), A.progressed(9, 50), B.started(40), B.progressed(1, 41)):
        assert play([*tape, late]) == job


def test_progress_never_decreases_within_execution() -> None:
    job = play([submitted(), A.progressed(2, 2), A.progressed(1, 1), A.progressed(2, 2), A.started(0)])
    assert (job.progress_n, job.started_at) == (2, at(2))


def test_later_attempt_has_no_superseded_executions() -> None:
    job = play([submitted(), A.started(1), B.started(2), B.retrying(3), NEXT.started(9)])
    assert (job.execution, job.superseded, job.progress) == ("next", (), None)


def test_only_later_run_at_is_scheduled() -> None:
    later = ORDER.model_copy(update={"run_at": at(60)})
    past = ORDER.model_copy(update={"run_at": at(0) - timedelta(days=1)})
    assert play([submitted(order=later)]).state == "scheduled"
    assert play([submitted(order=past)]).state == "queued"


def test_job_released_before_its_submission_keeps_no_key() -> None:
    held = submitted(order=ORDER.model_copy(update={"gates": Gates(ordering_key="customer=a", hold=True)}))
    job = play([released(1, 5), held])
    assert not job.has_slots
    assert evolve(job, released(1, 5)) is job
    assert play([held, A.failed(3)]).has_slots
    assert not play([held, A.failed(3), released(1, 5)]).has_slots


def test_time_of_a_signal_ends_although_the_run_has_the_most_signals() -> None:
    """Otherwise the job would wait for it forever."""
    most = [signalled(f"s{n}", 2 * n) for n in range(MAX_SIGNALS)]
    job = play([submitted(), *most, signalled("late", 2), signalled("approved", 1)])
    assert job.signals is not None and "late" not in job.signals
    assert job.signals["approved"]["timed_out"]
