"""The committed history after a cursor, and the positions of its readers."""

from datetime import timedelta

import pytest

from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import Gap, HistoryRange, Store
from jobtape.view.subscribers import committed
from tests.view.samples import NOON, commit, folded, job_id, record, submitted, succeeded

ALL = Selection()


def test_page_has_accepted_events_in_order(store: Store) -> None:
    first, second = submitted(1), submitted(2)
    record(store, first, second, first, succeeded(first))
    page = store.committed.page(0, 2, ALL)
    assert ([row.event_id for row in page.rows], page.full) == ([first.id, second.id], True)
    rest = store.committed.page(page.cursor, 2, ALL)
    assert ([row.name for row in rest.rows], rest.full) == (["succeeded"], False)
    assert rest.cursor == cursor_of(1, 3) == store.committed.reach().head
    assert store.committed.page(rest.cursor, 2, ALL).rows == []
    assert store.committed.page(rest.cursor, 2, ALL).cursor == rest.cursor


def test_newest_events_are_those_of_page_and_reach(store: Store) -> None:
    assert store.committed.newest(0, 5) == (store.committed.reach(), [])
    first, second = submitted(1, labels={"customer": "42"}), submitted(2, correlation_id="c")
    record(store, first, second, first, succeeded(first))
    for after in (0, cursor_of(1, 0), cursor_of(1, 3)):
        reach, events = store.committed.newest(after, 5)
        assert reach == store.committed.reach()
        assert [vars(each) for each in events] == [vars(each) for each in store.committed.page(after, 5, ALL).rows]
    assert [each.cursor for each in store.committed.newest(0, 2)[1]] == [cursor_of(1, 0), cursor_of(1, 1)]


def test_newest_of_view_without_checkpoint_is_nothing(empty: Store) -> None:
    empty.migrate()
    assert empty.committed.newest(0, 5) == (HistoryRange(), [])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Selection(events=frozenset({"succeeded"})), [(1, "succeeded"), (2, "succeeded")]),
        (Selection(types=frozenset({"mail.*"})), [(2, "submitted"), (2, "succeeded")]),
        (Selection(types=frozenset({"add", "nothing"})), [(1, "submitted"), (1, "succeeded")]),
        (Selection(job=job_id(1)), [(1, "submitted"), (1, "succeeded")]),
        (Selection(labels={"customer": "42"}), [(1, "submitted"), (1, "succeeded")]),
        (Selection(labels={"customer": "42", "more": "x"}), []),
        (Selection(correlation_id="c"), [(2, "submitted"), (2, "succeeded")]),
        (Selection(events=frozenset({"succeeded"}), correlation_id="c"), [(2, "succeeded")]),
    ],
    # Not the text of the parameters: a set has another order in each process.
    ids=["event", "prefix", "type", "job", "label", "labels", "correlation", "both"],
)
def test_page_has_events_that_match_selection(store: Store, wanted: Selection, expected: list[tuple[int, str]]) -> None:
    one = submitted(1, labels={"customer": "42", "kind": "a"})
    two = submitted(2, type="mail.send", correlation_id="c")
    record(store, one, two, succeeded(one), succeeded(two))
    page = store.committed.page(0, 100, wanted)
    assert [(1 if row.job_id == one.subject else 2, row.name) for row in page.rows] == expected
    assert wanted.job is not None or page.cursor == store.committed.reach().head


def test_page_without_match_ends_at_limit(store: Store) -> None:
    record(store, *(submitted(n) for n in range(10)))
    page = store.committed.page(0, 4, Selection(events=frozenset({"failed"})))
    assert (page.rows, page.cursor, page.full) == ([], cursor_of(1, 3), True)


def test_page_of_large_events_is_bounded_in_bytes(store: Store) -> None:
    orders = [submitted(n, payload={"text": "x" * 10_000}) for n in range(60)]
    record(store, *orders)
    seen: list[str] = []
    cursor, full = 0, True
    while full:
        page = store.committed.page(cursor, 55, ALL, max_bytes=200_000)
        assert len(page.rows) <= 20
        seen += [row.event_id for row in page.rows]
        cursor, full = page.cursor, page.full
    assert seen == [order.id for order in orders]


def test_reach_at_first_start_and_behind_gap(store: Store) -> None:
    assert store.committed.reach() == HistoryRange(0, cursor_of(1, -1))
    record(store, submitted(1), submitted(2))
    assert store.report_gap("me", Gap("tape-truncated", "retention"))
    store.accept_gap()
    reach = store.committed.reach()
    assert reach.horizon == cursor_of(1, 1) + 1
    assert reach.head >= reach.horizon
    commit(store, folded([submitted(3)], first=90))
    assert store.committed.reach() == HistoryRange(reach.horizon, cursor_of(1, 90))
    assert [row.cursor for row in store.committed.page(reach.horizon, 5, ALL).rows] == [cursor_of(1, 90)]


NAME = "subscription.x"


def test_position_has_one_reader_at_a_time(store: Store) -> None:
    positions = store.positions
    assert positions.take(NAME, "a", 60) is None
    assert positions.begin(NAME, 7)
    assert not positions.begin(NAME, 99)
    assert positions.take(NAME, "a", 60) == 7
    assert positions.take(NAME, "b", 60) is None
    assert not positions.move(NAME, "b", 50, 60)
    assert positions.move(NAME, "a", 20, 60)
    assert positions.move(NAME, "a", 10, 60), "a lower cursor renews and does not move back"
    positions.release(NAME, "b")
    assert positions.take(NAME, "b", 60) is None
    positions.release(NAME, "a")
    assert positions.take(NAME, "b", 0) == 20
    assert positions.take(NAME, "a", 60) == 20, "an expired lease is free"
    found = positions.read(NAME)
    assert found is not None
    assert (found.cursor, found.owner, found.idle.total_seconds() < 60) == (20, "a", True)
    assert [each.name for each in positions.all()] == [NAME]
    assert positions.forget(NAME)
    assert not positions.forget(NAME)
    assert positions.read(NAME) is None


@pytest.mark.parametrize("stretch", [3, 5000])
def test_before_finds_first_event_of_time(store: Store, monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    monkeypatch.setattr(committed, "_STRETCH", stretch)
    monkeypatch.setattr(committed, "_WINDOW", 4)
    before = store.committed.before
    assert before(NOON) == store.committed.reach().head
    # One job a minute for five hours. Each tenth one came 30 minutes late.
    late = timedelta(minutes=30)
    orders = [submitted(n, NOON + timedelta(minutes=n) - (n % 10 == 9) * late) for n in range(300)]
    record(store, *orders)
    for n in (0, 1, 57, 150, 290):
        wanted = NOON + timedelta(minutes=n)
        first = next(i for i, order in enumerate(orders) if order.time >= wanted)
        behind = store.committed.page(before(wanted), 1, ALL).rows[0]
        assert behind.cursor == cursor_of(1, first)
    assert before(NOON - timedelta(days=1000)) == 0
    assert before(NOON + timedelta(days=1000)) == store.committed.reach().head
