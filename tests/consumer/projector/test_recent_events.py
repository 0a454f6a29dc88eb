"""What the relay takes from memory equals what it would read from the view, and is bounded."""

import pytest

from benchmarks.rig.load import tapes
from jobtape.consumer.folding import fold_batch
from jobtape.consumer.projector import recent_events
from jobtape.consumer.projector.recent_events import RecentEvents
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import CommittedEvent, Store

NAMES = frozenset({"succeeded", "submitted"})


def commit_all(store: Store, recent: RecentEvents, jobs: int, size: int) -> list[int]:
    """Commit the tape of ``jobs`` jobs in batches of ``size`` and add each to ``recent``; return where they end."""
    store.migrate()
    assert store.create_checkpoint()
    assert store.take_lease("owner", 60)
    messages = list(tapes.messages(tapes.job_ids_of(jobs)))
    offset, ends = None, []
    for start in range(0, len(messages), size):
        batch = fold_batch(messages[start : start + size], 1, store.jobs)
        assert store.commit("owner", (1, offset), batch, 60)
        offset = batch.offset
        assert offset is not None
        ends.append(cursor_of(1, offset))
        recent.add(batch, ends[-1])
    return ends


def test_pages_equal_those_of_the_view(store: Store) -> None:
    recent = RecentEvents(NAMES)
    assert recent.page(0, 10) is None
    ends = commit_all(store, recent, 30, 7)
    assert recent.page(ends[0] - 1, 10) is None  # the first batch is not in memory
    cursor = ends[0]
    rows: list[CommittedEvent] = []
    while True:
        page = recent.page(cursor, 4)
        assert page is not None
        rows += page.rows
        cursor = page.cursor
        if not page.full:
            break
    of_view = store.committed.page(ends[0], 1000, Selection(events=NAMES)).rows
    assert cursor == ends[-1]
    assert [each_value(row) for row in rows] == [each_value(row) for row in of_view]
    assert len(rows) > 40


def test_a_read_position_cannot_go_back(store: Store) -> None:
    recent = RecentEvents(NAMES)
    ends = commit_all(store, recent, 10, 5)
    assert recent.page(ends[3], 10) is not None
    assert recent.page(ends[2], 10) is None


def test_too_many_events_are_dropped_and_later_ones_are_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "MOST", 12)
    recent = RecentEvents(NAMES)
    ends = commit_all(store, recent, 30, 7)
    assert recent.page(ends[0], 10) is None
    after = recent.after
    assert after in ends
    page = recent.page(after, 100)
    assert page is not None
    of_view = store.committed.page(after, 1000, Selection(events=NAMES)).rows
    assert [row.cursor for row in page.rows] == [row.cursor for row in of_view]
    assert len(page.rows) <= 12


def test_nothing_is_known_after_clear(store: Store) -> None:
    recent = RecentEvents(NAMES)
    ends = commit_all(store, recent, 5, 5)
    recent.clear()
    assert recent.page(ends[-1], 10) is None
    assert recent.head == 0


def each_value(row: object) -> tuple[object, ...]:
    """Return the fields of a row, which is compared by identity otherwise."""
    return tuple(getattr(row, name) for name in type(row).__dataclass_fields__)  # type: ignore[attr-defined]
