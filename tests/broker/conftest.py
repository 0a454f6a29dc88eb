"""Links to the session's broker, with the test's topology declared."""

from collections.abc import AsyncIterator

import pytest

from jobtape.broker import declare
from jobtape.broker.link import Connection, Link
from jobtape.broker.publisher import Publisher
from jobtape.schemas.topology import Topology
from tests.broker.proxy import Proxy


@pytest.fixture
async def link(broker_url: str, topology: Topology) -> AsyncIterator[Link]:
    """A connected link; work queues and tape exist."""

    async def setup(connection: Connection) -> None:
        await declare.declare(connection, topology)

    opened = Link(broker_url, name="test", setup=setup)
    opened.start()
    await declare.create_log(await opened.connection(), topology)
    yield opened
    await opened.close()


@pytest.fixture
async def publisher(link: Link, topology: Topology) -> Publisher:
    """A publisher without a proxy."""
    return Publisher(link, topology)


@pytest.fixture
async def proxy(broker_url: str) -> AsyncIterator[Proxy]:
    """A proxy to the broker that can cut connections."""
    async with Proxy(broker_url) as opened:
        yield opened


@pytest.fixture
async def far_link(link: Link, proxy: Proxy) -> AsyncIterator[Link]:
    """A second link, through the proxy."""
    opened = Link(proxy.url, name="far")
    opened.start()
    await opened.connection()
    yield opened
    await opened.close()
