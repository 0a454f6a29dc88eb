"""Reads of single jobs in the thread of an event loop: the same jobs as in other threads, and no waiting."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import make_url

from jobtape.view.loop_reads import sqlite as quick_reads
from jobtape.view.loop_reads.sqlite import NeedsThread, QuickReads
from jobtape.view.store import Store
from tests.view.samples import begin, job_id, postgresql_only, record, submitted, succeeded

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_reads, "PAUSE", 0.0)


@sqlite_only
def test_committed_events_are_read_at_once(store: Store) -> None:
    submission = submitted(1, labels={"a": "ä"})
    assert store.quick.job(submission.subject) is None
    for event in (submission, succeeded(submission, result={"sum": 3})):
        record(store, event)
        assert store.quick.job(submission.subject) == store.job(submission.subject) is not None


@postgresql_only
def test_postgresql_is_not_read_at_once(store: Store) -> None:
    with pytest.raises(NeedsThread):
        store.quick.job(job_id(1))


@sqlite_only
def test_locked_file_is_not_waited_for(store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_reads, "PAUSE", 600.0)
    store.close()
    other = sqlite3.connect(Path(make_url(database_url).database or ""), isolation_level=None)
    other.execute("PRAGMA journal_mode=DELETE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NeedsThread):
        store.quick.job(job_id(1))
    other.close()
    with pytest.raises(NeedsThread):
        store.quick.job(job_id(1))


@sqlite_only
def test_tables_that_are_missing_or_of_another_version_are_not_read(empty: Store, database_url: str) -> None:
    with pytest.raises(NeedsThread):
        empty.quick.job(job_id(1))
    empty.migrate()
    assert empty.quick.job(job_id(1)) is None
    empty.quick.close()
    with sqlite3.connect(Path(make_url(database_url).database or "")) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NeedsThread):
        empty.quick.job(job_id(1))


def test_replaced_file_is_read(tmp_path: Path) -> None:
    stores = []
    for name in ("old", "new"):
        store = Store(f"sqlite:///{tmp_path}/{name}.db")
        store.migrate()
        begin(store)
        stores.append(store)
    submission = submitted(1)
    record(stores[1], submission)
    for store in stores:
        store.close()
    quick = QuickReads(make_url(f"sqlite:///{tmp_path}/old.db"))
    assert quick.job(submission.subject) is None
    (tmp_path / "new.db").rename(tmp_path / "old.db")
    assert quick.job(submission.subject) is not None
    quick.close()


@sqlite_only
def test_slow_disk_is_left_to_threads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_reads, "SLOW", -1.0)
    monkeypatch.setattr(quick_reads, "PAUSE", 600.0)
    for _ in range(quick_reads.MAX_SLOW):
        assert store.quick.job(job_id(1)) is None
    with pytest.raises(NeedsThread):
        store.quick.job(job_id(1))
