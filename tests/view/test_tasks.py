"""How far long tasks have come: one moves a state on, and old ones are forgotten."""

from sqlalchemy import update

from jobtape.view import tables
from jobtape.view.store import Store
from jobtape.view.tasks import KEPT


def test_whoever_begins_again_goes_on(store: Store) -> None:
    assert store.tasks.begin("a", {"n": 0}) == {"n": 0}
    assert store.tasks.move("a", {"n": 0}, {"n": 1})
    assert not store.tasks.move("a", {"n": 0}, {"n": 2})
    assert store.tasks.begin("a", {"n": 0}) == {"n": 1}


def test_what_nobody_has_touched_for_long_is_forgotten(store: Store) -> None:
    for key in ("old", "young"):
        store.tasks.begin(key, {"n": 0})
    at = tables.tasks.c.at
    with store._database.writing() as connection:
        connection.execute(update(tables.tasks).where(tables.tasks.c.key == "old").values(at=at - KEPT - 1))
    store.tasks.begin("new", {"n": 0})
    assert store.tasks.read("old") is None
    assert store.tasks.read("young") == {"n": 0}
