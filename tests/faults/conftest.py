"""A broker that may be broken: one private node for all of these tests, which each of them leaves in order."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobtape.schemas.topology import Topology
from tests.consumer.rig import Rig
from tests.namespaces import some_topology
from tools.broker import install_server
from tools.node import PrivateNode
from tools.node_files import find_server


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    """Started once; a missing RabbitMQ is an error that says what to do."""
    if find_server() is None:
        install_server(lambda line: print(line, flush=True))
    folder = tmp_path_factory.mktemp("node")
    Path(folder).chmod(0o755)
    started = PrivateNode(folder)
    started.start()
    yield started
    started.stop()


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
