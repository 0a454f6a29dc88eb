"""A namespace with its tape, an empty view, and an API on both."""

from collections.abc import AsyncIterator

import pytest

from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig
from tests.producer.live_api import LiveApi, live_api
from tests.producer.running_api import QUEUES, Api, api, settings_for
from tests.view.samples import begin


@pytest.fixture
def topology(make_topology: MakeTopology) -> Topology:
    """A namespace with the queues of the test job types."""
    return make_topology(*QUEUES)


@pytest.fixture
async def rig(broker_url: str, topology: Topology) -> AsyncIterator[Rig]:
    """A tape, and a reader that collects its events."""
    async with Rig(broker_url, topology) as opened:
        yield opened


@pytest.fixture
def view(sqlite_url: str) -> Store:
    """A view with tables, in SQLite: for tests that are not about the database."""
    store = Store(sqlite_url)
    store.migrate()
    return store


@pytest.fixture
def settings(broker_url: str, topology: Topology, sqlite_url: str) -> Settings:
    """Settings for an API on ``rig`` and ``view``."""
    return settings_for(broker_url, topology, sqlite_url)


@pytest.fixture
async def served(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    """An API whose view no projector updates."""
    async with api(settings) as opened:
        yield opened


@pytest.fixture
async def projected(served: Api, rig: Rig, view: Store) -> AsyncIterator[Api]:
    """An API whose view a projector updates."""
    async with rig.projector(view):
        yield served


@pytest.fixture
async def live(store: Store, database_url: str) -> AsyncIterator[LiveApi]:
    begin(store)
    async with live_api(store, database_url, keepalive_interval=0.2) as opened:
        yield opened


@pytest.fixture
async def live_sqlite(view: Store, sqlite_url: str) -> AsyncIterator[LiveApi]:
    """Same as ``live``, on SQLite only."""
    begin(view)
    async with live_api(view, sqlite_url, keepalive_interval=0.2) as opened:
        yield opened
