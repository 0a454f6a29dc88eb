"""Rebuilds from the archive as the built-in job does."""

import time

from jobtape.consumer.replays.long_task import TaskSlice
from jobtape.consumer.replays.rebuild import ViewRebuild
from jobtape.view.store import Rebuild, Store


def task_slice(seconds: float = 60.0) -> TaskSlice:
    """A slice of time for a rebuild."""
    return TaskSlice(lambda fraction, words: None, time.monotonic() + seconds, "events")


def rebuilt(store: Store, key: str = "a") -> Rebuild:
    """Rebuild the whole view, and check that nothing differs."""
    working = ViewRebuild(store, task_slice())
    state = working.from_archive(store.rebuilds.begin(key, by_job=True))
    found = working.differences(state, 5)
    assert (found.changed, found.missing, found.added) == (0, 0, 0), found.examples
    return working.switch(state)
