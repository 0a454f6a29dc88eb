"""One projector at a time moves the checkpoint, together with what it writes."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.errors import JobtapeError
from jobtape.view.sql import bulk
from jobtape.view.store import Checkpoint, FoldedBatch, Gap, JobQuery, Store
from tests.view.samples import at_once, commit, folded, postgresql_only, record, submitted, succeeded


def until(done: Callable[[], Any], seconds: float = 10) -> Any:
    """Call ``done``, which takes some time itself, until it returns something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := done():
            return found
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture
def others(store: Store, database_url: str) -> Iterator[list[Store]]:
    """Three more stores on the same database."""
    stores = [Store(database_url) for _ in range(3)]
    yield stores
    for other in stores:
        other.close()


def now(store: Store) -> Checkpoint:
    checkpoint = store.checkpoint()
    assert checkpoint is not None
    return checkpoint


def test_first_start_creates_one_checkpoint(empty: Store) -> None:
    empty.migrate()
    assert empty.checkpoint() is None
    assert empty.take_lease("me", 60) is None
    assert at_once([empty.create_checkpoint] * 4).count(True) == 1
    assert empty.checkpoint() == Checkpoint(epoch=1, offset=None, digest=None, owner=None, lease_left=0.0, gap=None)


def test_lease_has_one_owner(store: Store) -> None:
    store.release_lease("another")
    assert store.take_lease("another", 60) is None
    assert not store.renew_lease("another", 60)
    assert 0 < now(store).lease_left <= 600
    assert store.renew_lease("me", 1000)
    assert 900 < now(store).lease_left <= 1000
    store.release_lease("me")
    assert now(store).lease_left == 0
    taken = store.take_lease("another", 60)
    assert taken is not None
    assert taken.owner == "another"


def test_expired_lease_is_taken_and_rejects_commit(store: Store) -> None:
    store.renew_lease("me", 0.2)
    taken = until(lambda: store.take_lease("another", 60))
    assert taken.owner == "another"
    assert not commit(store, folded([submitted(1)]))
    assert store.history() == []


def test_free_lease_is_taken_by_one_of_many(store: Store, others: list[Store]) -> None:
    for turn in range(10):
        owner = now(store).owner
        assert owner is not None
        store.release_lease(owner)
        takers = [partial(other.take_lease, f"{turn}-{n}", 60) for n, other in enumerate([store, *others])]
        assert len([taken for taken in at_once(takers) if taken is not None]) == 1


def test_commit_moves_checkpoint_and_renews_lease(store: Store) -> None:
    batch = folded([submitted(n) for n in range(3)])
    assert store.commit("me", (1, None), batch, 500)
    after = now(store)
    assert (after.epoch, after.offset, after.digest) == (1, 2, "d" * 64)
    assert after.cursor == cursor_of(1, 2)
    assert 400 < after.lease_left <= 500


@pytest.mark.parametrize(
    ("owner", "expected"), [("another", (1, None)), ("me", (1, 0)), ("me", (2, None)), ("", (1, None))]
)
def test_commit_of_another_owner_or_offset_writes_nothing(
    store: Store, owner: str, expected: tuple[int, int | None]
) -> None:
    for jobs in (1, bulk.COPIED):
        assert not store.commit(owner, expected, folded([submitted(n) for n in range(jobs)]), 60)
    assert now(store).offset is None
    assert store.history() == []
    assert store.list_jobs(JobQuery()) == []


def test_concurrent_commits_write_one_batch(store: Store, others: list[Store]) -> None:
    for offset in range(10):
        expected = (1, offset - 1 if offset else None)
        batch = folded([submitted(offset)], first=offset)
        actions = [partial(other.commit, "me", expected, batch, 60) for other in others]
        assert at_once(actions).count(True) == 1
    assert [row.cursor for row in store.history()] == [cursor_of(1, offset) for offset in range(10)]


def test_owners_that_alternate_write_each_event_once(store: Store, others: list[Store]) -> None:
    store.release_lease("me")
    length = 60

    def project(own: Store, owner: str) -> None:
        taken: Checkpoint | None = None
        while taken is None or taken.offset != length - 1:
            # A lease of no duration: each may take it between the other's read and its commit.
            taken = own.take_lease(owner, 0.0)
            if taken is not None and taken.offset != length - 1:
                following = 0 if taken.offset is None else taken.offset + 1
                batch = folded([submitted(following)], first=following)
                own.commit(owner, (taken.epoch, taken.offset), batch, 0.0)

    at_once([lambda: project(others[0], "a"), lambda: project(others[1], "b")])
    assert [row.cursor for row in store.history()] == [cursor_of(1, offset) for offset in range(length)]
    assert store.counts() == {("add", "submitted"): length}


def test_failed_commit_writes_neither_rows_nor_checkpoint(store: Store) -> None:
    record(store, submitted(1))
    again = folded([submitted(2)], first=0)  # a history row of this cursor is there already
    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):
        store.commit("me", (1, 0), FoldedBatch(offset=1, digest="x", jobs=again.jobs, history=again.history), 60)
    assert now(store).offset == 0
    assert store.job(again.jobs[0].id) is None
    assert len(store.history()) == 1


@postgresql_only
def test_job_that_is_removed_while_a_commit_waits_is_not_restored(store: Store, database_url: str) -> None:
    old = submitted(1)
    record(store, old, succeeded(old))
    repeated = replace(folded([old], first=2), new={old.subject})
    with (
        psycopg.connect(database_url) as pruner,
        psycopg.connect(database_url, autocommit=True) as observer,
        ThreadPoolExecutor(1) as thread,
    ):
        pruner.execute("SELECT FROM checkpoint FOR UPDATE")
        pruner.execute("DELETE FROM jobs")
        pruner.execute("INSERT INTO tombstones VALUES (%s, 0)", [old.subject])
        committing = thread.submit(commit, store, repeated)
        waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        until(lambda: observer.execute(waits).fetchall())
        pruner.commit()
        assert not committing.result()
    assert store.list_jobs(JobQuery()) == []


@pytest.mark.parametrize(
    ("gap", "epoch"),
    [(Gap("tape-missing", "no stream"), 2), (Gap("tape-replaced", "x\x00"), 2), (Gap("tape-truncated", ""), 1)],
    ids=lambda value: value.kind if isinstance(value, Gap) else "",
)
def test_gap_is_reported_and_accepted(store: Store, gap: Gap, epoch: int) -> None:
    record(store, submitted(1))
    assert not store.report_gap("another", gap)
    assert store.report_gap("me", gap)
    found = now(store).gap
    assert found is not None
    assert (found.kind, found.detail) == (gap.kind, gap.detail.replace("\x00", "\\x00"))
    assert now(store).offset == 0

    after = store.accept_gap()
    assert (after.epoch, after.offset, after.digest, after.gap) == (epoch, None, None, None)
    assert after.owner == "me"
    assert not store.commit("me", (1, 0), FoldedBatch(offset=5, digest="", barriers={"p": 1}), 60)
    assert store.passed_barrier("p") == 0


def test_accept_without_gap_is_refused(store: Store) -> None:
    record(store, submitted(1))
    assert store.report_gap("me", Gap("tape-missing", "for a moment"))
    assert store.report_gap("me", None)
    with pytest.raises(JobtapeError, match="no gap"):
        store.accept_gap()
    assert now(store).offset == 0
