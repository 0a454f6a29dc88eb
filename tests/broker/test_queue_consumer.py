"""Consuming queues: failures of the receiver and of the channel concern single deliveries."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from pamqp.commands import Basic
from pamqp.frame import marshal

from jobtape.broker import declare
from jobtape.broker.channels import channel, message_properties
from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.frames import FrameWriter
from jobtape.broker.link import Link
from jobtape.broker.queue_consumer import Delivery, QueueConsumer
from jobtape.schemas.topology import Topology
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue(link: Link, topology: Topology) -> AsyncIterator[str]:
    """A queue with the messages 0 to 4."""
    name = f"{topology.namespace}.consumed"
    async with channel(await link.connection()) as opened:
        await opened.queue_declare(name)
        publishing = ConfirmedChannel(link, "")
        sent = [publishing.publish(b"%d" % n, name, message_properties(), mandatory=True) for n in range(5)]
        await asyncio.gather(*sent)
        yield name
        await opened.queue_delete(name)


async def test_delivery_whose_receiver_fails_is_rejected_and_the_others_arrive(link: Link, queue: str) -> None:
    received: list[bytes] = []

    def receive(delivery: Delivery) -> None:
        received.append(delivery.body)
        if received.count(b"1") == 1 and delivery.body == b"1":
            raise LookupError("mistake")

    async with QueueConsumer(await link.connection(), [queue], prefetch=10, deliver=receive):
        await eventually(lambda: len(received) == 6)
    assert sorted(received) == [b"0", b"1", b"1", b"2", b"3", b"4"]


async def test_settling_after_the_broker_closed_the_channel_keeps_the_connection(link: Link, queue: str) -> None:
    deliveries: list[Delivery] = []
    connection = await link.connection()
    async with QueueConsumer(connection, [queue], prefetch=10, deliver=deliveries.append) as consumer:
        await eventually(lambda: len(deliveries) == 5)
        opened = deliveries[0]._settlements._channel
        FrameWriter(opened).write(marshal(Basic.Ack(999), opened.number))  # an unknown tag: the broker closes it
        while not opened.is_closed:
            await deliveries[0].ack()
            await asyncio.sleep(0)
        assert consumer.ended.is_set() or await asyncio.wait_for(consumer.ended.wait(), 5)
        assert not deliveries[0].can_be_settled
    assert (await declare.depth(connection, queue)) is not None
    assert await link.connection() is connection


async def test_deliveries_settled_in_any_order_and_bulk_end_as_their_receiver_says(link: Link, queue: str) -> None:
    """What one turn of the event loop acknowledges may be one frame for several deliveries. It must cover no other."""
    chance = random.Random(11)
    publishing = ConfirmedChannel(link, "")
    more = [publishing.publish(b"%d" % n, queue, message_properties(), mandatory=True) for n in range(5, 60)]
    await asyncio.gather(*more)
    deliveries: list[Delivery] = []
    connection = await link.connection()
    kept, acked, given_back = set[bytes](), list[bytes](), list[bytes]()
    async with QueueConsumer(connection, [queue], prefetch=100, deliver=deliveries.append):
        await eventually(lambda: len(deliveries) == 60)
        waiting = deliveries[:]
        chance.shuffle(waiting)
        kept = {each.body for each in waiting[:10]}
        waiting = sorted(waiting[10:], key=lambda each: int(each.body) + chance.uniform(0, 15))
        for each in waiting:
            if chance.random() < 0.2:
                given_back.append(each.body)
                await (each.reject() if chance.random() < 0.5 else each.requeue())
            else:
                acked.append(each.body)
                await each.ack()
            if chance.random() < 0.2:
                await asyncio.sleep(0)
        await eventually(lambda: len(deliveries) == 60 + len(given_back))
        assert sorted(each.body for each in deliveries[60:]) == sorted(given_back)
    again: list[Delivery] = []
    async with QueueConsumer(connection, [queue], prefetch=100, deliver=again.append):
        await eventually(lambda: len(again) == 10 + len(given_back))
        assert {each.body for each in again} == kept | set(given_back)
        await again[-1].ack_all()
    found = await declare.depth(connection, queue)
    assert found is not None and found.messages == 0
    assert acked and len(given_back) > 3


async def test_settling_after_leaving_does_nothing(link: Link, queue: str) -> None:
    deliveries: list[Delivery] = []
    connection = await link.connection()
    async with QueueConsumer(connection, [queue], prefetch=10, deliver=deliveries.append):
        await eventually(lambda: len(deliveries) == 5)
        await deliveries[0].ack()
    await deliveries[1].ack()
    assert not deliveries[1].can_be_settled
    found = await declare.depth(connection, queue)
    assert found is not None and found.messages == 4
    assert await link.connection() is connection
