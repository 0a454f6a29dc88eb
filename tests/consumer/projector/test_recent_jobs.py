"""Jobs are folded from memory, or as new ones, as if they were read; the memory is bounded. On both databases."""

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobtape.broker.stream_reader import TapeMessage
from jobtape.consumer.folding import fold_batch
from jobtape.consumer.projector import recent_jobs
from jobtape.consumer.projector.recent_jobs import RecentJobs
from jobtape.schemas.events import encode
from jobtape.schemas.job import Job, JobState
from jobtape.view.sql import bulk
from jobtape.view.store import JobQuery, Store
from tests.schemas import job_lives as lives
from tests.schemas.events_of_a_job import Execution, submitted
from tests.view.samples import begin, job_id


class Folding:
    """Folds into a store as the projector does, and compares each job in memory with the view's."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recent = RecentJobs()
        self.from_memory = 0
        self.as_new = 0
        self.refused = 0
        self._offset: int | None = None
        begin(store)

    def fold(self, batch: lives.Tape) -> None:
        """Commit one batch."""
        first = 0 if self._offset is None else self._offset + 1
        messages = [TapeMessage(first + n, encode(event), "event.x") for n, event in enumerate(batch)]
        folded = fold_batch(messages, 1, self._load, self.store.retention.gone, self.recent.new)
        if not self.store.commit("me", (1, self._offset), folded, 60):
            assert folded.new
            self.refused += 1
            self.recent.refused()
            folded = fold_batch(messages, 1, self._load, self.store.retention.gone, self.recent.new)
            assert not folded.new
            assert self.store.commit("me", (1, self._offset), folded, 60)
        self._offset = folded.offset
        self.as_new += len(folded.new)
        self.recent.add(folded)

    def _load(self, job_ids: Collection[str]) -> dict[str, Job]:
        read: list[str] = []

        def from_view(missing: Collection[str]) -> dict[str, Job]:
            read.extend(missing)
            return self.store.jobs(missing)

        found = self.recent.load(job_ids, from_view)
        assert found == self.store.jobs(job_ids)
        self.from_memory += len(set(found) - set(read))
        return found


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_view_is_the_fold_of_the_tape(data: st.DataObject) -> None:
    tapes = [data.draw(lives.disturbed(job_id(n))) for n in range(3)]
    tape = data.draw(lives.interleaved(tapes))
    rest = tape
    with TemporaryDirectory() as folder, patch.object(recent_jobs, "READ_FIRST", data.draw(st.integers(1, 5))):
        store = Store(f"sqlite:///{Path(folder) / 'view.db'}")
        store.migrate()
        folding = Folding(store)
        while rest:
            size = data.draw(st.integers(1, 6))
            folding.fold(rest[:size])
            rest = rest[size:]
        whole = fold_batch(
            [TapeMessage(n, encode(event), "event.x") for n, event in enumerate(tape)], 1, lambda ids: {}
        )
        assert store.jobs({event.subject for event in tape}) == {job.id: job for job in whole.jobs}
        assert [(row.cursor, row.accepted) for row in store.history()] == [
            (row.cursor, row.accepted) for row in whole.history
        ]
        store.close()


@pytest.mark.parametrize("jobs", [1, bulk.COPIED])
def test_submissions_need_no_read_and_repeated_ones_change_nothing(store: Store, jobs: int) -> None:
    folding = Folding(store)
    submissions: lives.Tape = [submitted(0, job=job_id(n)) for n in range(jobs)]
    folding.fold(submissions)
    assert (folding.as_new, folding.refused) == (jobs, 0)
    folding.fold([Execution("a", job=job_id(n)).succeeded(1) for n in range(jobs)])
    before = store.jobs([job_id(n) for n in range(jobs)])
    folding.fold([*submissions, submitted(1, job=job_id(jobs))])
    assert (folding.as_new, folding.refused) == (jobs, 1)
    assert store.jobs(before) == before
    assert store.counts() == {("add", "submitted"): jobs + 1, ("add", "succeeded"): jobs}
    assert len(store.history()) == 3 * jobs + 1


def test_submission_after_the_outcome_is_added_to_the_job(store: Store) -> None:
    folding = Folding(store)
    folding.fold([Execution("a", job=job_id(0)).succeeded(1)])
    folding.fold([submitted(0, job=job_id(0))])
    assert folding.refused == 1
    job = store.job(job_id(0))
    assert job is not None
    assert (job.state, job.submitted_at is None) == (JobState.SUCCEEDED, False)


def test_repeated_submission_of_a_removed_job_does_not_restore_it(store: Store) -> None:
    folding = Folding(store)
    folding.fold([submitted(0, job=job_id(0)), Execution("a", job=job_id(0)).succeeded(1)])
    store.retention.prune("me", datetime.now(UTC))
    folding.fold([submitted(0, job=job_id(0)), submitted(0, job=job_id(1))])
    assert folding.refused == 1
    assert [job.id for job in store.list_jobs(JobQuery())] == [job_id(1)]


def test_many_repeated_submissions_are_read_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_jobs, "READ_FIRST", 3)
    folding = Folding(store)
    folding.fold([submitted(0), Execution("a").succeeded(1)])
    for _ in range(10):
        folding.fold([submitted(0)])
    # The refused batch itself is folded again with a read, and two more; then the next is refused.
    assert folding.refused == 4
    folding.fold([submitted(0, job=job_id(1))])
    folding.fold([submitted(0, job=job_id(2))])
    folding.fold([submitted(0, job=job_id(3))])
    assert folding.as_new == 2


def test_an_outcome_needs_no_read(store: Store) -> None:
    folding = Folding(store)
    folding.fold([submitted(0)])
    folding.fold([Execution("a").succeeded(1)])
    assert folding.from_memory == 1
    folding.fold([Execution("a").succeeded(1)])  # a job that has ended may be removed from the view, so it is read
    assert folding.from_memory == 1


def test_large_jobs_and_the_oldest_of_many_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_jobs, "MOST", 2)
    folding = Folding(store)
    folding.fold([submitted(0, job=job_id(n)) for n in range(3)])
    folding.fold([Execution("a", job=job_id(n)).started(1) for n in range(3)])
    assert folding.from_memory == 2
    folding.fold([Execution("a", job=job_id(2)).progressed(1, 2)])
    before = folding.from_memory
    monkeypatch.setattr(recent_jobs, "LONGEST", 10)
    folding.fold([Execution("a", job=job_id(2)).progressed(2, 3)])
    assert folding.from_memory == before + 1
    folding.fold([Execution("a", job=job_id(2)).progressed(3, 4)])
    assert folding.from_memory == before + 1


def test_nothing_is_known_after_clear(store: Store) -> None:
    folding = Folding(store)
    folding.fold([submitted(0)])
    folding.recent.clear()
    folding.fold([Execution("a").started(1)])
    assert folding.from_memory == 0
