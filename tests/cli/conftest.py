"""Fixtures for installations: folders and environments to start ``jobtape`` in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.installation import Installation, installation_in
from tests.conftest import MakeTopology
from tests.namespaces import environment_for


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
