"""The set of cancelled runs is exact, and limited in number and age."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils import uuid7

from jobtape.consumer.worker.cancellations import KEPT, CancelledRuns

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Returns the time that a test has set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def test_set_has_this_run_of_this_job_only() -> None:
    runs = CancelledRuns(Clock())
    job, other = str(uuid7()), str(uuid7())
    assert not runs.has(job, 1)
    runs.add(job, 2, START)
    assert [runs.has(job, run) for run in (1, 2, 3)] == [False, True, False]
    assert not runs.has(other, 2)
    runs.add(str(UUID(int=0)), 2**31 - 1, START)
    assert not runs.has(str(UUID(int=1)), 2**31 - 1)


def test_oldest_runs_are_removed_when_there_are_too_many() -> None:
    runs = CancelledRuns(Clock(), most=80)
    jobs = [str(UUID(int=n)) for n in range(200)]
    for job in jobs:
        runs.add(job, 1, START)
        assert len(runs) <= 80
    assert all(runs.has(job, 1) for job in jobs[-60:])
    assert not runs.has(jobs[0], 1)


def test_runs_older_than_the_longest_delay_are_removed() -> None:
    clock = Clock()
    runs = CancelledRuns(clock)
    jobs = [str(UUID(int=n)) for n in range(365)]
    for job in jobs:
        runs.add(job, 1, clock.now)
        clock.now += timedelta(days=1)
    kept = [job for job in jobs if runs.has(job, 1)]
    assert jobs[-KEPT.days :] == kept[-KEPT.days :]
    assert len(runs) == len(kept) <= KEPT.days * 1.3


def test_wrong_times_remove_no_run() -> None:
    runs = CancelledRuns(Clock())
    future, past, now = (str(UUID(int=n)) for n in range(3))
    runs.add(future, 1, START + timedelta(days=4000))
    runs.add(now, 1, START)
    runs.add(past, 1, START - timedelta(days=4000))
    assert runs.has(future, 1) and runs.has(now, 1)
    assert len(runs) == 3
