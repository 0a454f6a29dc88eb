"""The set of cancelled runs: exact, and bounded."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils import uuid7

from jobtape.consumer.worker.cancellations import KEPT, CancelledRuns

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Says what it is told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def test_a_run_of_a_job_and_no_other() -> None:
    runs = CancelledRuns(Clock())
    job, other = str(uuid7()), str(uuid7())
    assert not runs.has(job, 1)
    runs.add(job, 2, START)
    assert [runs.has(job, run) for run in (1, 2, 3)] == [False, True, False]
    assert not runs.has(other, 2)
    runs.add(str(UUID(int=0)), 2**31 - 1, START)
    assert not runs.has(str(UUID(int=1)), 2**31 - 1)


def test_the_oldest_go_first_when_there_are_too_many() -> None:
    runs = CancelledRuns(Clock(), most=80)
    jobs = [str(UUID(int=n)) for n in range(200)]
    for job in jobs:
        runs.add(job, 1, START)
        assert len(runs) <= 80
    assert all(runs.has(job, 1) for job in jobs[-60:])
    assert not runs.has(jobs[0], 1)


def test_what_no_job_can_wait_for_any_more_is_forgotten() -> None:
    clock = Clock()
    runs = CancelledRuns(clock)
    jobs = [str(UUID(int=n)) for n in range(365)]
    for job in jobs:
        runs.add(job, 1, clock.now)
        clock.now += timedelta(days=1)
    kept = [job for job in jobs if runs.has(job, 1)]
    assert jobs[-KEPT.days :] == kept[-KEPT.days :]
    assert len(runs) == len(kept) <= KEPT.days * 1.3


def test_times_that_cannot_be_right_change_nothing() -> None:
    runs = CancelledRuns(Clock())
    future, past, now = (str(UUID(int=n)) for n in range(3))
    runs.add(future, 1, START + timedelta(days=4000))
    runs.add(now, 1, START)
    runs.add(past, 1, START - timedelta(days=4000))
    assert runs.has(future, 1) and runs.has(now, 1)
    assert len(runs) == 3
