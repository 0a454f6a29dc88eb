"""A namespace on the session's broker, and one on the node that may be broken."""

from collections.abc import AsyncIterator

import pytest

from jobtape.schemas.topology import Topology
from tests.consumer.installation import Rig
from tests.namespaces import some_topology
from tools.brokers.node import PrivateNode


@pytest.fixture
async def rig(broker_url: str, topology: Topology) -> AsyncIterator[Rig]:
    """On the session's broker, which stays whole."""
    async with Rig(broker_url, topology) as opened:
        yield opened


@pytest.fixture
async def node_rig(node: PrivateNode) -> AsyncIterator[Rig]:
    """On the node that may be broken."""
    topology = some_topology()
    async with Rig(node.url, topology) as opened:
        yield opened
