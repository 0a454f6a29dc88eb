"""Fixtures for installations: folders and environments to start ``jobtape`` in."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.brokers import ensure_server
from tests.cli.installation import Installation, installation_in
from tests.conftest import MakeTopology
from tests.namespaces import environment_for
from tools.brokers.node import PrivateNode
from tools.processes.ports import free_port


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """An installation without a broker."""
    made = installation_in(tmp_path)
    yield made
    made.close()


@pytest.fixture
def broker_installation(tmp_path: Path, broker_url: str, make_topology: MakeTopology) -> Iterator[Installation]:
    """An installation on the session's broker, in a namespace of its own that is removed afterwards."""
    topology = make_topology("default", "gates")
    made = installation_in(tmp_path, **environment_for(broker_url, topology))
    yield made
    made.close()


@pytest.fixture(scope="session")
def management_url() -> str:
    """A URL for the management API; it answers only in tests that use ``managed_node``."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="session")
def managed_node(tmp_path_factory: pytest.TempPathFactory, management_url: str) -> Iterator[PrivateNode]:
    """A node whose management API is at ``management_url``."""
    ensure_server()
    address = urlsplit(management_url)
    config = [f"management.tcp.port = {address.port}", f"management.tcp.ip = {address.hostname}"]
    config.append("collect_statistics_interval = 500")  # milliseconds between two counts of a queue, instead of 5,000
    started = PrivateNode(tmp_path_factory.mktemp("managed") / "node", config, plugins=["rabbitmq_management"])
    started.start()
    yield started
    started.kill()  # its data are not needed again
