"""The rows of webhooks: what moves them, and what a change of a user means for a projector that moves them."""

from datetime import UTC, datetime

from sqlalchemy import update

from jobtape.schemas.filters.selection import EventFilter
from jobtape.view import tables
from jobtape.view.sql.clock import NOW
from jobtape.view.store import Store, Webhook


def created(store: Store, cursor: int = 0) -> None:
    store.webhooks.create("a", "https://example.org/", "", EventFilter(events=["failed"]), "thin", b"first", cursor)


def row(store: Store) -> Webhook:
    found = store.webhooks.read("a")
    assert found is not None
    return found


def shift(store: Store, column: str, seconds: float) -> None:
    """Set a time of the row to so many seconds from now."""
    with store._database.writing() as connection:
        connection.execute(update(tables.webhooks).values({column: NOW + seconds}))


def test_cursor_moves_forward_only_and_not_past_a_change(store: Store) -> None:
    created(store)
    assert store.webhooks.move("me", {"a": (1, 10)})
    assert store.webhooks.move("me", {"a": (1, 5)})
    assert row(store).cursor == 10
    assert not store.webhooks.move("another", {"a": (1, 20)})
    assert store.webhooks.replay("a", 3, 10)
    # A projector that has not read the replay yet moves nothing.
    assert store.webhooks.move("me", {"a": (1, 30), "gone": (1, 30)})
    assert (row(store).cursor, row(store).replay_to, row(store).revision) == (3, 10, 2)
    assert store.webhooks.replay("a", 8, 9)
    assert (row(store).cursor, row(store).replay_to) == (3, 10)
    assert store.webhooks.move("me", {"a": (3, 30)})
    assert row(store).cursor == 30


def test_enabling_skips_what_was_missed_and_forgets_the_failures(store: Store) -> None:
    created(store, 5)
    assert store.webhooks.enable("a", 100)
    assert row(store).cursor == 5, "it was enabled"
    assert not store.webhooks.note_failure("a", "no answer")
    assert (row(store).state, row(store).last_error) == ("failing", "no answer")
    first = row(store).failing_since
    assert first is not None and abs((datetime.now(UTC) - first).total_seconds()) < 60
    assert not store.webhooks.note_failure("a", "still none")
    assert row(store).failing_since == first
    assert store.webhooks.disable("a", "somebody did")
    assert (row(store).state, store.webhooks.enabled()) == ("disabled", [])
    assert not store.webhooks.replay("a", 0, 10)
    assert store.webhooks.enable("a", 100)
    assert (row(store).state, row(store).cursor, row(store).disabled_because) == ("active", 100, None)


def test_five_days_of_failures_disable_and_a_success_ends_them(store: Store) -> None:
    created(store)
    store.webhooks.note_failure("a", "no answer")
    shift(store, "failing_since", -5 * 86_400 + 60)
    assert not store.webhooks.note_failure("a", "no answer")
    store.webhooks.note_success("a")
    assert row(store).state == "active"
    store.webhooks.note_failure("a", "no answer")
    shift(store, "failing_since", -5 * 86_400 - 1)
    assert store.webhooks.note_failure("a", "no answer")
    assert row(store).state == "disabled"
    assert not store.webhooks.note_failure("a", "no answer"), "it is disabled already"


def test_old_secret_signs_for_a_day(store: Store) -> None:
    created(store)
    assert row(store).secrets == (b"first",)
    assert store.webhooks.rotate("a", b"second")
    assert row(store).secrets == (b"second", b"first")
    shift(store, "old_until", -1)
    assert row(store).secrets == (b"second",)
    assert store.webhooks.delete("a")
    assert not store.webhooks.delete("a")
    assert store.webhooks.all() == []
