"""Opening and closing channels repeatedly leaves no objects on the connection, and loses no cancellation."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aio_pika
import pytest

from jobtape.broker import channels, declare
from jobtape.broker.channels import channel
from jobtape.broker.link import Connection, Link
from jobtape.broker.publisher import Publisher, publish_dead_letter
from jobtape.broker.queue_consumer import QueueConsumer
from jobtape.broker.stream_reader import StreamReader, last_chunk
from jobtape.schemas.topology import Topology
from tests.consumer.installation import order_event

pytestmark = pytest.mark.anyio

TIMES = 50
MAX_LEFT = 6
"""Objects that one use may leave; an aio-pika channel leaves more than thirty."""

Use = Callable[[Link, Connection, Topology], Awaitable[object]]


async def _confirming(_: Link, connection: Connection, __: Topology) -> None:
    async with channel(connection, confirms=True):
        pass


async def _check_queue(_: Link, connection: Connection, topology: Topology) -> None:
    assert await declare.log_exists(connection, topology)


async def _check_missing_queue(_: Link, connection: Connection, topology: Topology) -> None:
    assert await declare.depth(connection, f"{topology.namespace}.nothing") is None


async def _declare(_: Link, connection: Connection, topology: Topology) -> None:
    await declare.declare_results(connection, topology)


async def _bind(_: Link, connection: Connection, topology: Topology) -> None:
    await declare.declare_subscription(connection, topology.results, topology.work_queue("default"), ["#"])


async def _publish_dead_letter(link: Link, _: Connection, topology: Topology) -> None:
    await publish_dead_letter(link, topology, b"no job", "a test")


async def _read(_: Link, connection: Connection, topology: Topology) -> None:
    async with StreamReader(connection, topology.log.name, "last"):
        pass


async def _consume(_: Link, connection: Connection, topology: Topology) -> None:
    async with QueueConsumer(connection, [topology.work_queue("default").name], prefetch=1, deliver=lambda _: None):
        pass


@pytest.mark.parametrize(
    "use", [_confirming, _check_queue, _check_missing_queue, _declare, _bind, _publish_dead_letter, _read, _consume]
)
async def test_use_leaves_no_objects(link: Link, topology: Topology, use: Use) -> None:
    connection = await link.connection()
    for _ in range(5):
        await use(link, connection, topology)
    before = _objects()
    for _ in range(TIMES):
        await use(link, connection, topology)
    assert _objects() - before < MAX_LEFT * TIMES


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def test_number_of_a_closed_channel_is_not_taken_at_once(broker_url: str) -> None:
    """aiormq frees it before it has answered the broker, which then sees a second ``channel.open`` on it."""
    async with await aio_pika.connect(broker_url) as connection:
        assert connection.transport is not None
        aiormq_connection = connection.transport.connection
        most = aiormq_connection.connection_tune.channel_max = 8
        async with channel(connection) as kept:
            used = []
            for _ in range(most + 1):
                # The broker closes it: there is no such queue.
                assert await declare.depth(connection, "jobtape-no-such-queue") is None
                used.append(channels._last_numbers[aiormq_connection])
        assert kept.number not in used
        assert len(set(used)) == most - 1
        assert used[:2] == used[most - 1 :], "they are taken in turn"


async def open_and_close(connection: Connection, _: str) -> None:
    async with channel(connection):
        pass


async def read_last_chunk(connection: Connection, tape: str) -> None:
    await last_chunk(connection, tape)


@pytest.mark.parametrize("work", [open_and_close, read_last_chunk])
async def test_cancellation_in_any_step_ends_the_task(
    link: Link, publisher: Publisher, topology: Topology, work: Callable[[Connection, str], Coroutine[Any, Any, None]]
) -> None:
    """Otherwise a service goes on after its projector has stopped, until it is cancelled again."""
    await publisher.publish(order_event(topology, "add"))
    connection = await link.connection()
    lost, ended_before = [], 0
    for step in range(1000):
        task = asyncio.create_task(work(connection, topology.log.name))
        for _ in range(step):
            await asyncio.sleep(0)
        requested = task.cancel()
        await asyncio.wait({task})
        if requested and not task.cancelled():
            lost.append(step)
        ended_before += not requested
        if ended_before == 20:
            break
    assert lost == []
    assert ended_before, "the last steps were reached"
