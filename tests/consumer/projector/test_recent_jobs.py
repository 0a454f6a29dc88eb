"""The jobs in memory are those of the view, and their number and size are bounded."""

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobtape.broker.stream_reader import TapeMessage
from jobtape.consumer.folding import fold_batch
from jobtape.consumer.projector import recent_jobs
from jobtape.consumer.projector.recent_jobs import RecentJobs
from jobtape.schemas.events import encode
from jobtape.schemas.job import Job
from jobtape.view.store import Store
from tests.schemas import job_lives as lives
from tests.schemas.events_of_a_job import Execution, submitted
from tests.view.samples import begin, job_id


class Folding:
    """Folds into a store with the jobs in memory, and compares each of them with the view's."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recent = RecentJobs()
        self.from_memory = 0
        self._offset: int | None = None
        begin(store)

    def fold(self, batch: lives.Tape) -> None:
        """Commit one batch."""
        first = 0 if self._offset is None else self._offset + 1
        messages = [TapeMessage(first + n, encode(event), "event.x") for n, event in enumerate(batch)]
        folded = fold_batch(messages, 1, self._load)
        assert self.store.commit("me", (1, self._offset), folded, 60)
        self._offset = folded.offset
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
def test_jobs_in_memory_are_those_of_the_view(data: st.DataObject) -> None:
    tapes = [data.draw(lives.disturbed(job_id(n))) for n in range(3)]
    events = data.draw(lives.interleaved(tapes))
    with TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{Path(folder) / 'view.db'}")
        store.migrate()
        folding = Folding(store)
        while events:
            size = data.draw(st.integers(1, 6))
            folding.fold(events[:size])
            events = events[size:]
        store.close()


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
