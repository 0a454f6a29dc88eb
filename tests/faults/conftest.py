"""Fixtures: rigs on the session's broker and on a node that a test may break, and an SQLite view."""

from collections.abc import AsyncIterator, Iterator

import pytest

from jobtape.schemas.topology import Topology
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.namespaces import some_topology
from tools.brokers.node import PrivateNode


@pytest.fixture
async def rig(broker_url: str, topology: Topology) -> AsyncIterator[Rig]:
    """A rig on the session's broker, which a test must not break."""
    async with Rig(broker_url, topology) as opened:
        yield opened


@pytest.fixture
async def node_rig(node: PrivateNode) -> AsyncIterator[Rig]:
    """A rig on the node that a test may break."""
    topology = some_topology()
    async with Rig(node.url, topology) as opened:
        yield opened


@pytest.fixture
def view(sqlite_url: str) -> Iterator[Store]:
    """An empty SQLite view."""
    opened = Store(sqlite_url)
    opened.migrate()
    yield opened
    opened.close()
