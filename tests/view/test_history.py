"""Events, unreadable messages, counts and barriers."""

from dataclasses import replace
from typing import Any

from sqlalchemy import text

from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.job import JobState
from jobtape.view.projection import BARRIERS_KEPT
from jobtape.view.store import FoldedBatch, HistoryRow, Store, UnreadableRow
from tests.view.samples import commit, folded, record, submitted, succeeded

QUEUED, SUCCEEDED = JobState.QUEUED, JobState.SUCCEEDED


def test_history_has_events_and_states_after_them(store: Store) -> None:
    first, second = submitted(1, labels={"a": "b"}), submitted(2)
    done = succeeded(first, result={"sum": 7})
    batch = record(store, first, second, done, done)
    assert [row.accepted for row in batch.history] == [True, True, True, False]
    assert [row.state for row in batch.history] == [QUEUED, QUEUED, SUCCEEDED, SUCCEEDED]
    assert store.history() == batch.history
    assert store.history(first.subject) == [row for row in batch.history if row.job_id == first.subject]


def test_history_continues_behind_cursor(store: Store) -> None:
    batch = record(store, *(submitted(n) for n in range(25)))
    found: list[HistoryRow] = []
    while page := store.history(after=found[-1].cursor if found else 0, limit=10):
        found += page
    assert [row.cursor for row in found] == [row.cursor for row in batch.history]


def test_unreadable_messages_are_kept_raw(store: Store) -> None:
    rows = [
        UnreadableRow(cursor_of(1, 0), "a NUL \x00 and half a \ud800 pair", b"\x00\xff{"),
        UnreadableRow(cursor_of(1, 1), "empty", b""),
    ]
    assert commit(store, FoldedBatch(offset=1, digest="", unreadable=rows))
    escaped = replace(rows[0], reason="a NUL \\x00 and half a \\ud800 pair")
    assert store.unreadable() == [escaped, rows[1]]
    assert store.unreadable(after=cursor_of(1, 0)) == [rows[1]]
    assert store.unreadable(limit=1) == [escaped]


def test_counts_are_added(store: Store) -> None:
    order = submitted(1)
    record(store, order, submitted(2), succeeded(order), succeeded(order))
    record(store, submitted(3))
    assert store.counts() == {("add", "submitted"): 3, ("add", "succeeded"): 1}


def barriers(store: Store, offset: int, **passed: int) -> None:
    assert commit(store, FoldedBatch(offset=offset, digest="", barriers=passed))


def test_highest_barrier_remains(store: Store) -> None:
    assert store.passed_barrier("a") == 0
    barriers(store, 0, a=5, b=2)
    barriers(store, 1, a=3, b=4)
    assert (store.passed_barrier("a"), store.passed_barrier("b")) == (5, 4)


def test_old_barriers_are_removed(store: Store) -> None:
    barriers(store, 0, dead=5, alive=1)
    age: dict[str, Any] = {"age": BARRIERS_KEPT + 60}
    with store._database.writing() as connection:
        connection.execute(text("UPDATE barriers SET at = at - :age"), age)
    barriers(store, 1, alive=2)
    assert (store.passed_barrier("dead"), store.passed_barrier("alive")) == (0, 2)


def test_empty_batch_is_committed(store: Store) -> None:
    before = record(store, submitted(1))
    assert commit(store, FoldedBatch(offset=before.offset, digest=before.digest))
    assert store.counts() == {("add", "submitted"): 1}
    assert len(store.history()) == 1


def test_new_epoch_follows_old_one(store: Store) -> None:
    record(store, submitted(1))
    renewed = folded([submitted(2)], first=0, epoch=2)
    assert commit(store, replace(renewed, offset=1))
    assert [row.cursor for row in store.history()] == [cursor_of(1, 0), cursor_of(2, 0)]
