"""Places to start ``jobtape`` in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.installation import Place, place_in
from tests.conftest import MakeTopology
from tests.namespaces import environment_for


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place without a broker."""
    made = place_in(tmp_path)
    yield made
    made.close()


@pytest.fixture
def broker_place(tmp_path: Path, broker_url: str, make_topology: MakeTopology) -> Iterator[Place]:
    """A place with the session's broker, in a namespace of its own that is removed afterwards."""
    topology = make_topology("default", "gates")
    made = place_in(tmp_path, **environment_for(broker_url, topology))
    yield made
    made.close()
