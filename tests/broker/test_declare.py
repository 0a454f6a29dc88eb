"""Declares a topology, checks its queues, and removes it."""

import asyncio
import gc
import random
from dataclasses import replace

import aio_pika
import aiormq.exceptions
import pytest

from jobtape.broker import declare
from jobtape.broker.channels import channel
from jobtape.broker.link import Link
from jobtape.broker.publisher import Publisher
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.topology import EVENT_KEY, TapeRetention, Topology
from tests.conftest import MakeTopology
from tests.consumer.installation import order_event
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_declare_twice_changes_nothing(link: Link, publisher: Publisher, topology: Topology) -> None:
    await publisher.publish(order_event(topology, "add"), ["run.default"])
    connection = await link.connection()
    for _ in range(2):
        await declare.declare(connection, topology)
        assert await declare.create_log(connection, topology) is False
    found = await declare.depth(connection, topology.work_queue("default").name)
    assert found is not None
    assert (found.messages, found.consumers) == (1, 0)


async def test_other_properties_raise_with_advice(link: Link, make_topology: MakeTopology) -> None:
    topology = make_topology("mine")
    channel = await (await link.connection()).channel()
    await channel.declare_queue(topology.work_queue("mine").name, durable=True)
    with pytest.raises(JobtapeError, match=r"other properties.*run\.mine.*JOBTAPE_NAMESPACE"):
        await declare.declare(await link.connection(), topology)
    assert link.up, "the connection is still good"


async def test_only_create_log_creates_tape(link: Link, make_topology: MakeTopology) -> None:
    topology = make_topology()
    connection = await link.connection()
    await declare.declare(connection, topology)
    assert not await declare.log_exists(connection, topology)
    assert await declare.create_log(connection, topology)
    assert await declare.log_exists(connection, topology)


async def test_existing_tape_may_have_other_retention(link: Link, topology: Topology) -> None:
    """Arguments of a queue cannot be changed, but settings may have changed since."""
    other = replace(topology, retention=TapeRetention(max_bytes=1_000_000))
    await declare.declare(await link.connection(), other)
    assert await declare.create_log(await link.connection(), other) is False


async def test_lost_binding_of_tape_is_restored(link: Link, publisher: Publisher, topology: Topology) -> None:
    connection = await link.connection()
    channel = await connection.channel()
    under = await channel.get_underlay_channel()
    await under.queue_unbind(topology.log.name, topology.events.name, EVENT_KEY)
    await declare.declare(connection, topology)
    await publisher.publish(order_event(topology, "add"))


async def test_remove_namespace_leaves_others_alone(broker_url: str, link: Link, make_topology: MakeTopology) -> None:
    first = make_topology("default", "mail")
    second = make_topology("default", "mail", namespace=f"{first.namespace}-2")
    connection = await link.connection()
    for topology in (first, second):
        await declare.declare(connection, topology)
        await declare.create_log(connection, topology)
    await declare.remove_namespace(broker_url, first)
    for queue in (*first.declared_queues(), first.log):
        assert await declare.depth(connection, queue.name) is None
    for queue in (*second.declared_queues(), second.log):
        assert await declare.depth(connection, queue.name) is not None
    await Publisher(link, second).publish(order_event(second, "add"), ["run.mail"])
    await declare.remove_namespace(broker_url, first)


def test_queue_without_leader_is_not_missing() -> None:
    """With RabbitMQ's texts for the two cases."""
    gone = "NOT_FOUND - no queue 'ns.log' in vhost '/'"
    asleep = "NOT_FOUND - home node 'rabbit@host' of durable queue 'ns.log' in vhost '/' is down or inaccessible"
    assert declare.is_missing(aiormq.exceptions.ChannelNotFoundEntity(gone))
    assert not declare.is_missing(aiormq.exceptions.ChannelNotFoundEntity(asleep))


async def test_cancelled_depth_calls_keep_connection_open(broker_url: str) -> None:
    """When plain aiormq calls are cancelled like this, the broker closes the connection within a second."""
    chance = random.Random(1)
    async with await aio_pika.connect(broker_url) as connection:
        lost: list[object] = []
        connection.close_callbacks.add(lambda *why: lost.append(why))

        async def look() -> None:
            for _ in range(150):
                try:
                    async with asyncio.timeout(chance.uniform(0, 0.004)):
                        assert await declare.depth(connection, "jobtape-no-such-queue") is None
                except TimeoutError:
                    continue

        async def open_and_close() -> None:
            for _ in range(150):
                async with channel(connection):
                    pass

        await asyncio.gather(*(look() for _ in range(3)), *(open_and_close() for _ in range(2)))
        assert await declare.depth(connection, "jobtape-no-such-queue") is None
        assert lost == []


async def test_error_of_a_cancelled_depth_call_is_not_reported(broker_url: str, link: Link, topology: Topology) -> None:
    """The broker refuses the call after its caller has gone. anyio fails a test whose loop reports an error."""
    connection = await link.connection()
    name = f"{topology.namespace}.locked"
    async with await aio_pika.connect(broker_url) as other:
        await (await other.channel()).declare_queue(name, exclusive=True)
        with pytest.raises(aiormq.exceptions.ChannelLockedResource):
            await declare.depth(connection, name)
        before = asyncio.all_tasks()
        call = asyncio.create_task(declare.depth(connection, name))
        for _ in range(3):  # turns of the loop, until the part that goes on in the background has begun
            await asyncio.sleep(0)
        begun = asyncio.all_tasks() - before - {call}
        assert begun
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        await eventually(lambda: all(task.done() for task in begun), what="it has ended in the background")
        del call
        begun.clear()
        gc.collect()
