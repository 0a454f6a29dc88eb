"""A rig in a namespace of the test's own, and handlers that wait."""

from collections.abc import AsyncIterator, Iterator

import pytest

from jobtape.schemas.topology import Topology
from jobtape.view.store import Store
from tests.consumer import jobs
from tests.consumer.installation import Rig


@pytest.fixture
async def rig(broker_url: str, topology: Topology) -> AsyncIterator[Rig]:
    """Tape, publisher and watcher, without worker and projector."""
    async with Rig(broker_url, topology) as opened:
        yield opened


@pytest.fixture
def view(sqlite_url: str) -> Iterator[Store]:
    """An empty view in SQLite, for tests that need a projector and do not ask about the database."""
    opened = Store(sqlite_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
async def folded_rig(rig: Rig, view: Store) -> AsyncIterator[Rig]:
    """The rig with a projector, which places the work of jobs that wait."""
    async with rig.projector(view):
        yield rig


@pytest.fixture
def closed_gate() -> Iterator[None]:
    """Close the gate for which ``hold`` jobs wait. It opens after the test, since threads cannot be ended."""
    jobs.gate.clear()
    jobs.calls.clear()
    yield
    jobs.gate.set()
