"""An API that listens, with a projector and a worker behind it, and a network in between that can misbehave."""

from collections.abc import AsyncIterator

import pytest

from jobtape import Client
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.client.jobs import add, boom, period, steps
from tests.consumer.rig import Rig
from tests.producer.conftest import rig, settings, topology, view
from tests.producer.serving import api, listening

__all__ = ["rig", "settings", "topology", "view"]

JOBS = (add, period, boom, steps)


@pytest.fixture
async def network(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Proxy]:
    """The way to an API that takes jobs and tells of them; nobody works on them."""
    async with (
        api(settings, *JOBS) as served,
        rig.projector(view),
        listening(served.app, lifespan="off") as port,
        Proxy(f"http://127.0.0.1:{port}") as proxy,
    ):
        yield proxy


@pytest.fixture
async def client(network: Proxy) -> AsyncIterator[Client]:
    """A client that goes this way."""
    async with Client(network.url) as opened:
        yield opened


@pytest.fixture
async def worker(rig: Rig, network: Proxy) -> AsyncIterator[None]:
    """Somebody who works on the jobs."""
    async with rig.worker(*JOBS):
        yield
