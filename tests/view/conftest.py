"""A store on each database: the same tests run on both."""

from collections.abc import Iterator

import pytest

from jobtape.view.store import Store
from tests.view.samples import begin


@pytest.fixture
def empty(database_url: str) -> Iterator[Store]:
    """A store without tables."""
    store = Store(database_url, timeout=2.0)
    yield store
    store.close()


@pytest.fixture
def store(empty: Store) -> Store:
    """A store with tables, a checkpoint without events, and a lease of the owner "me"."""
    empty.migrate()
    begin(empty)
    return empty
