"""States of long tasks: one caller changes a state, and old ones are removed."""

from sqlalchemy import update

from jobtape.view import tables
from jobtape.view.maintenance.tasks import KEPT
from jobtape.view.store import Store


def test_begin_continues_saved_state(store: Store) -> None:
    assert store.tasks.begin("a", {"n": 0}) == {"n": 0}
    assert store.tasks.move("a", {"n": 0}, {"n": 1})
    assert not store.tasks.move("a", {"n": 0}, {"n": 2})
    assert store.tasks.begin("a", {"n": 0}) == {"n": 1}


def test_old_states_are_removed(store: Store) -> None:
    for key in ("old", "young"):
        store.tasks.begin(key, {"n": 0})
    at = tables.tasks.c.at
    with store._database.writing() as connection:
        connection.execute(update(tables.tasks).where(tables.tasks.c.key == "old").values(at=at - KEPT - 1))
    store.tasks.begin("new", {"n": 0})
    assert store.tasks.begin("old", {"n": 1}) == {"n": 1}
    assert store.tasks.begin("young", {"n": 1}) == {"n": 0}
