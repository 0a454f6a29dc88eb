"""The relay's row: who may move it, where it begins, and how far it is behind."""

from datetime import UTC, datetime, timedelta

from jobtape.view.store import RelayState, Store
from tests.view.samples import record, submitted, succeeded


def state(store: Store) -> RelayState:
    found = store.relay.state()
    assert found is not None
    return found


def test_relay_begins_with_fresh_tape(database_url: str) -> None:
    store = Store(database_url)
    store.migrate()
    assert store.create_checkpoint()
    assert store.relay.state() is None
    store.expect_fresh_tape()
    store.expect_fresh_tape()
    assert state(store) == RelayState("final", 0, 0, 0, 0, None, 0.0)
    store.close()


def test_relay_does_not_begin_with_tape_after_fold(store: Store) -> None:
    """The view knows jobs. If the relay began with the tape, it would publish all of their events."""
    record(store, submitted(1))
    store.expect_fresh_tape()
    assert store.relay.state() is None


def test_relay_row_is_moved_forward_by_active_projector_only(store: Store) -> None:
    assert not store.relay.begin("b", 5)
    assert store.relay.take_up("me", "all") is None
    assert store.relay.begin("me", 5)
    assert store.relay.begin("me", 99), "it has begun already"
    assert store.relay.take_up("b", "all") is None
    assert store.relay.take_up("me", "all") == 5
    assert not store.relay.move("b", 9, 1, 1, None)
    assert store.relay.move("me", 9, 2, 1, None)
    assert store.relay.move("me", 7, 1, 1, None)
    assert state(store) == RelayState("all", 9, 2, 1, 0, None, 0.0)
    assert not store.relay.forget("b")
    assert store.relay.forget("me")
    assert store.relay.state() is None


def test_stall_is_counted_once(store: Store) -> None:
    assert store.relay.begin("me", 5)
    for _ in range(3):
        assert store.relay.move("me", 5, 0, 0, "no confirm\x00")
    assert (state(store).stalls, state(store).fault) == (1, "no confirm\\x00")
    assert store.relay.move("me", 6, 1, 0, None)
    assert (state(store).stalls, state(store).fault) == (1, None)


def test_behind_is_age_of_next_event(store: Store) -> None:
    long_ago = datetime.now(UTC) - timedelta(seconds=500)
    done = succeeded(submitted(1)).model_copy(update={"time": long_ago})
    record(store, submitted(1), done, submitted(2))
    head = store.committed.reach().head
    assert store.relay.begin("me", 1)
    assert 499 < state(store).behind < 560
    assert store.relay.move("me", head - 1, 1, 0, None)
    assert state(store).behind == 0, "submitted is not published"
