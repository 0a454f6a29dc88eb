"""Rebuilds from the archive as the built-in job does."""

import time

from jobtape.consumer.replays.long_task import TaskSlice
from jobtape.consumer.replays.rebuild import Rebuilder
from jobtape.view.store import RebuildState, Store


def task_slice(seconds: float = 60.0) -> TaskSlice:
    """A slice of time for a rebuild."""
    return TaskSlice(lambda fraction, words: None, time.monotonic() + seconds, "events")


def rebuilt(store: Store, key: str = "a") -> RebuildState:
    """Rebuild the whole view, and check that nothing differs."""
    working = Rebuilder(store, task_slice())
    state = working.from_archive(store.rebuilds.begin(key, by_job=True))
    found = working.differences(state, 5)
    assert (found.changed, found.missing, found.added) == (0, 0, 0), found.examples
    return working.switch(state)
