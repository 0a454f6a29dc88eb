"""Test of a broker in a container. Without Docker, it tests that the reason is reported."""

from pathlib import Path
from uuid import uuid4

import pytest

from tests.containers import NoContainersError, check_engine
from tools.brokers.amqp import probe
from tools.brokers.container import IMAGE, BrokerContainer
from tools.brokers.docker import DockerError, docker, remove_volume


def test_stopped_container_is_removed_and_its_volume_stays(tmp_path: Path) -> None:
    name = f"jobtape-test-{uuid4().hex[:8]}"
    container = BrokerContainer(tmp_path, name)
    try:
        check_engine(IMAGE)
    except NoContainersError:
        with pytest.raises(DockerError):
            container.start(timeout=5.0)
        return
    try:
        server = container.start()
        assert probe(container.url) == server
        assert docker("port", name, "5672/tcp").startswith("127.0.0.1:")
        assert container.identity.startswith("docker-")
        container.stop()
        assert docker("ps", "--all", "--quiet", "--filter", f"name=^/{name}$") == ""
        assert docker("volume", "ls", "--quiet", "--filter", f"name={name}") == name
    finally:
        container.stop()
        remove_volume(name)
