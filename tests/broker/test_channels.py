"""What is opened and closed again and again leaves nothing behind, however long the connection lives."""

import gc
from collections.abc import Awaitable, Callable

import pytest

from jobtape.broker import declare
from jobtape.broker.channels import channel
from jobtape.broker.dead_queue import publish_dead
from jobtape.broker.intake import Intake
from jobtape.broker.link import Connection, Link
from jobtape.broker.stream_reader import StreamReader
from jobtape.broker.subscription_queues import declare_bound
from jobtape.schemas.topology import Topology

pytestmark = pytest.mark.anyio

TIMES = 50
FEW = 6
"""Objects that may stay for each time; an aio-pika channel leaves more than thirty."""

Use = Callable[[Link, Connection, Topology], Awaitable[object]]


async def _confirming(_: Link, connection: Connection, __: Topology) -> None:
    async with channel(connection, confirms=True):
        pass


async def _look(_: Link, connection: Connection, topology: Topology) -> None:
    assert await declare.log_exists(connection, topology)


async def _look_in_vain(_: Link, connection: Connection, topology: Topology) -> None:
    assert await declare.depth(connection, f"{topology.namespace}.nothing") is None


async def _declare(_: Link, connection: Connection, topology: Topology) -> None:
    await declare.declare_results(connection, topology)


async def _bind(_: Link, connection: Connection, topology: Topology) -> None:
    await declare_bound(connection, topology.results, topology.work_queue("default"), ["#"])


async def _bury(link: Link, _: Connection, topology: Topology) -> None:
    await publish_dead(link, topology, b"no job", "a test")


async def _read(_: Link, connection: Connection, topology: Topology) -> None:
    async with StreamReader(connection, topology.log.name, "last"):
        pass


async def _take(_: Link, connection: Connection, topology: Topology) -> None:
    async with Intake(connection, [topology.work_queue("default").name], prefetch=1, deliver=lambda _: None):
        pass


@pytest.mark.parametrize("use", [_confirming, _look, _look_in_vain, _declare, _bind, _bury, _read, _take])
async def test_nothing_stays_on_the_connection(link: Link, topology: Topology, use: Use) -> None:
    connection = await link.connection()
    for _ in range(5):
        await use(link, connection, topology)
    before = _objects()
    for _ in range(TIMES):
        await use(link, connection, topology)
    assert _objects() - before < FEW * TIMES


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())
