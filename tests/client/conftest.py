"""Fixtures: a running API with a projector, and a proxy before it that can break connections."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from jobtape import Client
from jobtape.broker.declare import remove_namespace
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.client.jobs import add, answer, ask, boom, period, steps
from tests.consumer.installation import Rig
from tests.namespaces import some_topology
from tests.producer.running_api import api, serve, settings_for

JOBS = (add, period, boom, steps, ask, answer)


@dataclass(frozen=True)
class RunningApi:
    """The URL of an API, and the rig behind it."""

    url: str
    rig: Rig


@pytest.fixture(scope="module")
async def running_api(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    """Run one API and projector for the tests of a module. No worker runs."""
    topology = some_topology()
    database_url = f"sqlite:///{tmp_path_factory.mktemp('client') / 'view.db'}"
    store = Store(database_url)
    store.migrate()
    async with (
        Rig(broker_url, topology) as rig,
        api(settings_for(broker_url, topology, database_url), *JOBS) as served,
        rig.projector(store),
        serve(served.app, lifespan="off") as port,
    ):
        yield RunningApi(f"http://127.0.0.1:{port}", rig)
    store.close()
    await remove_namespace(broker_url, topology)


@pytest.fixture
async def network(running_api: RunningApi) -> AsyncIterator[Proxy]:
    """A proxy before the API."""
    async with Proxy(running_api.url) as proxy:
        yield proxy


@pytest.fixture
async def client(network: Proxy) -> AsyncIterator[Client]:
    """A client that connects through the proxy."""
    async with Client(network.url) as opened:
        yield opened


@pytest.fixture
async def worker(running_api: RunningApi) -> AsyncIterator[None]:
    """Run a worker for the jobs."""
    async with running_api.rig.worker(*JOBS):
        yield
