"""A rig in a namespace of the test's own."""

from collections.abc import AsyncIterator

import pytest

from jobtape.schemas.topology import Topology
from tests.consumer.rig import Rig


@pytest.fixture
async def rig(broker_url: str, topology: Topology) -> AsyncIterator[Rig]:
    """Tape, publisher and watcher, without worker and projector."""
    async with Rig(broker_url, topology) as opened:
        yield opened
