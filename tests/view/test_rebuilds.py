"""Rebuilds: a second generation of the view is made, compared with the serving one, and replaces it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text

from jobtape.consumer.folding import fold_messages
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.errors import UnreadableEvent, ViewUnavailable
from jobtape.schemas.events import decode
from jobtape.view.maintenance import comparison as comparing
from jobtape.view.maintenance import rebuilds
from jobtape.view.maintenance.comparison import ViewComparison
from jobtape.view.sql import paging
from jobtape.view.store import ByJob, Differences, FoldedBatch, JobQuery, RawMessage, RebuildState, Store
from jobtape.view.values import UnreadableRow
from tests.view.samples import NOON, commit, folded, postgresql_only, record, submitted, succeeded

LATER = NOON + timedelta(days=10)


def fold_all(store: Store, rebuild: RebuildState, limit: int = 1000) -> RebuildState:
    while entries := store.rebuilds.archive(rebuild.cursor, limit):
        batch = fold_messages(entries, partial(store.rebuilds.known, rebuild))
        moved = store.rebuilds.commit(rebuild, batch, entries[-1].cursor)
        assert moved is not None
        rebuild = moved
    return rebuild


def fold_by_job(store: Store, rebuild: RebuildState, limit: int = 1000) -> RebuildState:
    """Fold the archive job by job, the unreadable messages first."""
    position = rebuild.by_job
    assert position is not None
    for read in (store.rebuilds.unreadable_archive, partial(store.rebuilds.archive_by_job, limit=limit)):
        while entries := read(position):
            batch = fold_messages(entries, partial(store.rebuilds.known, rebuild))
            events = position.events + len(entries)
            position = ByJob(position.end, entries[-1].job_id, entries[-1].cursor, events)
            moved = store.rebuilds.commit_by_job(rebuild, batch, position)
            assert moved == store.rebuilds.state()
            assert moved is not None
            assert store.rebuilds.commit_by_job(rebuild, batch, position) is None, "it was moved"
            rebuild = moved
        position = replace(position, event=0) if position.job_id == "" else position
    done = store.rebuilds.commit_by_job(rebuild, FoldedBatch(offset=None, digest=None), None)
    assert done is not None
    return done


def compared(store: Store, rebuild: RebuildState) -> Differences:
    comparison = ViewComparison(store.rebuilds.database, rebuild, 5)
    while comparison.step():
        pass
    return comparison.found


def dump(store: Store) -> tuple[object, ...]:
    query = JobQuery(limit=1000)
    return (store.list_jobs(query), store.history(), store.unreadable(), store.counts())


def filled(store: Store) -> None:
    """Commit jobs with labels and results, an event that is not accepted, and an unreadable message."""
    one, two = submitted(1, labels={"customer": "42"}), submitted(2)
    record(store, one, two, one, succeeded(one, {"sum": 3}))
    now = store.checkpoint()
    assert now is not None
    offset = 1 + (now.offset or 0)
    commit(
        store,
        FoldedBatch(offset=offset, digest="", unreadable=[UnreadableRow(cursor_of(1, offset), why_not(b"?"), b"?")]),
    )


def test_archive_has_all_messages_raw_in_order(store: Store) -> None:
    filled(store)
    whole = store.rebuilds.archive(0)
    assert [each.cursor for each in whole] == [cursor_of(1, offset) for offset in range(5)]
    assert whole[4].body == b"?"
    assert store.rebuilds.archive(whole[1].cursor, 2) == whole[2:4]
    assert store.rebuilds.archive(whole[-1].cursor) == []


def why_not(body: bytes) -> str:
    with pytest.raises(UnreadableEvent) as raised:
        decode(body)
    return str(raised.value)


def change(serving: str | None, rebuilt: str | None, jobs: int, changed: int | None = None) -> dict[str, Any]:
    """Return the entry of ``Differences.states`` of jobs that are all changed, or ``changed`` of them."""
    return {"serving": serving, "rebuilt": rebuilt, "jobs": jobs, "changed": jobs if changed is None else changed}


@pytest.mark.parametrize("by_job", [True, False])
@pytest.mark.parametrize("page", [1, 2, 1000])
def test_rebuild_with_same_rules_makes_same_view(store: Store, page: int, by_job: bool) -> None:
    filled(store)
    before = dump(store)
    begun = store.rebuilds.begin("a", by_job=by_job)
    rebuild = fold_by_job(store, begun, page) if by_job else fold_all(store, begun, page)
    found = compared(store, rebuild)
    assert (found.compared, found.changed, found.missing, found.added) == (2, 0, 0, 0)
    assert found.states == [change("queued", "queued", 1, 0), change("succeeded", "succeeded", 1, 0)]
    assert store.rebuilds.switch(rebuild, fold_messages) == rebuild
    assert (dump(store), store.rebuilds.state()) == (before, None)
    assert store.list_jobs(JobQuery(labels=[("customer", "42")])) != []


@pytest.mark.parametrize("by_job", [True, False])
def test_switch_folds_later_events(store: Store, by_job: bool) -> None:
    filled(store)
    begun = store.rebuilds.begin("a", by_job=by_job)
    rebuild = fold_by_job(store, begun) if by_job else fold_all(store, begun)
    three = submitted(3)
    record(store, three, succeeded(three))
    before = dump(store)
    assert compared(store, rebuild).compared == 2, "jobs with later events are not compared"
    done = store.rebuilds.switch(rebuild, fold_messages)
    assert done is not None
    assert done.cursor > rebuild.cursor
    assert dump(store) == before


def test_switch_rejects_batch_folded_from_old_tables(store: Store) -> None:
    filled(store)
    store.rebuilds.switch(fold_all(store, store.rebuilds.begin("a")), fold_messages)
    assert not commit(store, folded([submitted(9)], first=5))
    assert store.take_lease("me", 60) is not None
    assert commit(store, folded([submitted(9)], first=5))


def test_repeated_rebuilds_leave_no_tables(store: Store) -> None:
    filled(store)
    for n in range(3):
        before = dump(store)
        assert store.rebuilds.switch(fold_all(store, store.rebuilds.begin(str(n))), fold_messages) is not None
        assert dump(store) == before
        assert store.take_lease("me", 60) is not None
        record(store, submitted(20 + n))
    store.rebuilds.clean_up()
    store.rebuilds.clean_up()
    assert sorted(table for table in names(store) if "_g" in table or "retired" in table) == []


def test_abandoned_rebuilds_leave_no_tables(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store)
    before = dump(store)
    monkeypatch.setattr(rebuilds, "CHUNK", 2)
    for n in range(3):
        fold_all(store, store.rebuilds.begin(f"given up {n}"))
    assert store.rebuilds.switch(fold_all(store, store.rebuilds.begin("last")), fold_messages) is not None
    assert dump(store) == before
    store.rebuilds.clean_up()
    assert sorted(table for table in names(store) if "_g" in table or "retired" in table) == []


def test_rebuild_continues_under_its_own_key_only(store: Store) -> None:
    filled(store)
    begun = store.rebuilds.begin("a")
    entries = store.rebuilds.archive(0, 2)
    moved = store.rebuilds.commit(begun, fold_messages(entries, lambda ids: {}), entries[-1].cursor)
    assert store.rebuilds.begin("a") == moved != begun
    assert store.rebuilds.commit(begun, FoldedBatch(offset=None, digest=None), 99) is None, "another process moved it"
    other = store.rebuilds.begin("b")
    assert (other.cursor, store.rebuilds.state()) == (0, other)
    assert store.rebuilds.known(other, [job.id for job in store.list_jobs(JobQuery())]) == {}
    assert not store.rebuilds.abandon(moved), "the other one ended it"
    assert store.rebuilds.state() == other
    assert store.rebuilds.abandon(other)
    assert not store.rebuilds.abandon(other)
    assert [table for table in names(store) if "_g" in table] == []


def test_switch_with_many_events_left_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilds, "LAST_EVENTS", 3)
    filled(store)
    begun = store.rebuilds.begin("a")
    assert store.rebuilds.switch(begun, fold_messages) is None
    assert store.rebuilds.state() == begun
    record(store, submitted(7))  # the lease was not taken


def test_abandoned_rebuild_neither_switches_nor_writes(store: Store) -> None:
    filled(store)
    first = fold_all(store, store.rebuilds.begin("a"))
    second = store.rebuilds.begin("b")
    before = dump(store)
    assert store.rebuilds.switch(first, fold_messages) is None
    assert not store.rebuilds.has_switched(first)
    assert (dump(store), store.rebuilds.state()) == (before, second)
    fresh = store.rebuilds.begin("a")
    store.rebuilds.begin("b")
    assert store.rebuilds.commit(fresh, FoldedBatch(offset=None, digest=None), 1) is None, (
        "it has the same number and cursor"
    )
    done = store.rebuilds.switch(fold_all(store, second), fold_messages)
    assert done is not None
    assert store.rebuilds.has_switched(done)
    assert dump(store) == before


def test_switch_does_not_restore_pruned_jobs(store: Store) -> None:
    half, whole, kept = submitted(1, labels={"a": "b"}), submitted(2), submitted(3, at=LATER)
    record(store, half, whole, succeeded(whole), succeeded(half), kept, succeeded(kept))
    begun = store.rebuilds.begin("a")
    entries = store.rebuilds.archive(0, 3)
    moved = store.rebuilds.commit(begun, fold_messages(entries, lambda ids: {}), entries[-1].cursor)
    assert moved is not None
    pruned = store.retention.prune("me", LATER)
    assert pruned is not None
    assert pruned.jobs == 2
    found = compared(store, moved)
    assert (found.missing, found.added) == (0, 0)
    assert store.rebuilds.switch(fold_all(store, moved), fold_messages) is not None
    assert [job.id for job in store.list_jobs(JobQuery())] == [kept.subject]
    assert {row.job_id for row in store.history()} == {kept.subject}
    with store._database.reading() as connection:
        assert connection.execute(text("SELECT * FROM job_labels")).all() == []


def test_pruned_jobs_are_removed_before_switch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilds, "REMOVED_AT_ONCE", 2)
    tape = [submitted(n) for n in range(3)]
    record(store, *tape, *map(succeeded, tape))
    rebuild = fold_all(store, store.rebuilds.begin("a"))
    assert not store.rebuilds.remove_pruned(rebuild)
    assert store.retention.prune("me", LATER) is not None
    assert [store.rebuilds.remove_pruned(rebuild) for _ in range(3)] == [True, True, False]
    assert store.rebuilds.known(rebuild, [event.subject for event in tape]) == {}


@postgresql_only
def test_switch_that_waits_for_reader_does_not_block_reads(store: Store) -> None:
    """A dump may hold the old tables for minutes. The switch waits for it, and readers would wait for the switch."""
    filled(store)
    rebuild = fold_all(store, store.rebuilds.begin("a"))
    reader = Store(store._database.url.render_as_string(hide_password=False), timeout=1.5)
    with store._database._readers.connect().execution_options(isolation_level="READ COMMITTED") as other:
        other.execute(text("SELECT * FROM jobs"))
        with ThreadPoolExecutor(1) as thread:
            tried = thread.submit(store.rebuilds.switch, rebuild, fold_messages)
            while not tried.done():
                assert len(reader.list_jobs(JobQuery())) == 2
            with pytest.raises(ViewUnavailable, match="locked"):
                tried.result()
        assert store.rebuilds.state() == rebuild
        other.rollback()
    reader.close()
    record(store, submitted(9))  # the lease was not taken
    assert store.rebuilds.switch(rebuild, fold_messages) is not None


def test_failed_fold_changes_nothing(store: Store) -> None:
    filled(store)
    begun, before = store.rebuilds.begin("a"), dump(store)

    def broken(entries: Sequence[RawMessage], known: object) -> FoldedBatch:
        raise RuntimeError("an error of the new rules")

    with pytest.raises(RuntimeError):
        store.rebuilds.switch(begun, broken)
    assert (dump(store), store.rebuilds.state()) == (before, begun)


def test_comparison_counts_and_shows_differences(store: Store) -> None:
    filled(store)
    with store._database.writing() as connection:
        connection.execute(text("UPDATE jobs SET state = 'failed', reason = 'error' WHERE state = 'succeeded'"))
        connection.execute(text("DELETE FROM jobs WHERE state = 'queued'"))
    rebuild = fold_all(store, store.rebuilds.begin("a"))
    found = compared(store, rebuild)
    assert (found.changed, found.missing, found.added) == (1, 0, 1)
    assert found.states == [change(None, "queued", 1), change("failed", "succeeded", 1)]
    changed, added = found.examples
    assert changed["fields"] == {"state": ["failed", "succeeded"], "reason": ["error", None]}
    assert (added["rebuilt"], added["fields"]["state"]) == ("queued", [None, "queued"])
    assert store.rebuilds.switch(rebuild, fold_messages) is not None
    assert sorted(job.state for job in store.list_jobs(JobQuery())) == ["queued", "succeeded"]


def test_comparison_continues_and_halves_slow_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MOST_JOBS", 4)
    monkeypatch.setattr(comparing, "FEWEST_JOBS", 1)
    record(store, *(submitted(n) for n in range(5)))
    with store._database.writing() as connection:
        connection.execute(text("UPDATE jobs SET state = 'failed'"))
    rebuild = fold_all(store, store.rebuilds.begin("a"))
    compare = ViewComparison._compare

    def compare_two_at_most(self: ViewComparison, connection: Connection, end: str) -> Differences:
        found = compare(self, connection, end)
        if found.compared > self.found.compared + 2:
            raise ViewUnavailable("it took too long")
        return found

    monkeypatch.setattr(ViewComparison, "_compare", compare_two_at_most)
    totals = []
    for _ in range(4):
        part = ViewComparison(store.rebuilds.database, rebuild, 3)
        more = part.step()
        part.save()
        totals.append((more, part.found.compared, part.found.changed, len(part.found.examples)))
    assert totals == [(True, 2, 2, 2), (True, 4, 4, 3), (True, 5, 5, 3), (False, 5, 5, 3)]
    assert part.found.states == [change("failed", "queued", 5)]
    assert part.found.examples[0]["fields"] == {"state": ["failed", "queued"]}
    assert store.rebuilds.abandon(rebuild)
    assert ViewComparison(store.rebuilds.database, store.rebuilds.begin("a"), 3).found == Differences()


def test_comparison_limits_size_of_examples(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "EXAMPLES_BYTES", 10_000)
    tape = [submitted(n) for n in range(5)]
    record(store, *tape, *(succeeded(event, {"text": "é" * 30_000}) for event in tape))
    with store._database.writing() as connection:
        connection.execute(text("UPDATE jobs SET result = result || ' '"))
    found = compared(store, fold_all(store, store.rebuilds.begin("a")))
    assert found.changed == 5
    assert len(found.examples) == 2
    old, new = found.examples[0]["fields"]["result"]
    assert old == new
    assert old.endswith("…")
    assert len(old.encode()) < 2_010


def test_archive_page_is_bounded_in_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "STEP", 2)
    monkeypatch.setattr(rebuilds, "PAGE_BYTES", 30_000)
    tape = [submitted(n, payload={"text": "x" * 10_000}) for n in range(9)]
    record(store, *tape)
    pages, after = [], 0
    while page := store.rebuilds.archive(after):
        pages.append(len(page))
        after = page[-1].cursor
    assert pages == [3, 3, 3]
    rebuilt = fold_all(store, store.rebuilds.begin("a"))
    assert store.rebuilds.switch(rebuilt, fold_messages) is not None
    assert len(store.list_jobs(JobQuery())) == 9


def test_page_of_jobs_is_bounded_and_ends_behind_a_job(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "STEP", 2)
    monkeypatch.setattr(rebuilds, "PAGE_BYTES", 30_000)
    tape = [submitted(n, payload={"text": "x" * 10_000}) for n in range(4)]
    record(store, *tape, *(succeeded(event) for event in tape))
    end = cursor_of(1, 7)
    pages, after = [], ByJob(end)
    while page := store.rebuilds.archive_by_job(after):
        assert len({entry.job_id for entry in page}) * 2 == len(page)
        pages.append(len(page))
        after = ByJob(end, page[-1].job_id, page[-1].cursor)
    assert sum(pages) == 8
    assert max(pages) <= 4
    first_two = cursor_of(1, 1)
    assert [entry.cursor for entry in store.rebuilds.archive_by_job(ByJob(first_two))] == [cursor_of(1, 0), first_two]


def names(store: Store) -> list[str]:
    with store._database.reading() as connection:
        return inspect(connection).get_table_names()


def test_switch_to_later_history_raises_horizon(store: Store) -> None:
    filled(store)
    whole = store.rebuilds.archive(0)
    late = store.rebuilds.begin("stream", whole[1].cursor)
    assert store.rebuilds.switch(fold_all(store, late), fold_messages) is not None
    assert store.committed.reach().horizon == whole[2].cursor - 1
