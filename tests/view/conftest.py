"""A store on each database: the same suite holds for both."""

from collections.abc import Iterator

import pytest

from jobtape.view.store import Store


@pytest.fixture
def empty(database_url: str) -> Iterator[Store]:
    """A store without tables."""
    store = Store(database_url, timeout=2.0)
    yield store
    store.close()


@pytest.fixture
def store(empty: Store) -> Store:
    """A store with tables, a checkpoint at the start, and a lease of the owner "me"."""
    empty.migrate()
    assert empty.create_checkpoint()
    assert empty.take_lease("me", 60) is not None
    return empty
