"""Reads the tape."""

import asyncio
import time

import pytest

from jobtape.broker.link import Link
from jobtape.broker.publisher import MAX_IN_FLIGHT, Publisher
from jobtape.broker.stream_reader import Start, StreamReader
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing
from jobtape.schemas.events import Submitted, decode
from jobtape.schemas.topology import EVENT_KEY, Topology
from tests.broker.proxy import Proxy
from tests.consumer.installation import order_event
from tests.waiting import eventually, within

pytestmark = pytest.mark.anyio


async def fill(publisher: Publisher, n: int) -> None:
    """Publish ``n`` events that are numbered in their payloads."""
    for i in range(n):
        await publisher.publish(order_event(publisher.topology, "add", {"i": i}))


def number(body: bytes) -> int:
    """The number in the event's payload."""
    event = decode(body)
    assert isinstance(event, Submitted)
    return int(event.data.order.payload["i"])


@pytest.mark.parametrize(("start", "first"), [("first", 0), (0, 0), (17, 17), (49, 49)])
async def test_read_starts_at_position(
    link: Link, publisher: Publisher, topology: Topology, start: Start, first: int
) -> None:
    await fill(publisher, 50)
    offsets: list[int] = []
    numbers: list[int] = []
    async with StreamReader(await link.connection(), topology.log.name, start) as reader:
        while len(numbers) < 50 - first:
            for message in await reader.read(20, 5):
                offsets.append(message.offset)
                numbers.append(number(message.body))
    assert numbers == list(range(first, 50))
    assert offsets == numbers, "no segment was dropped, so there are no gaps"


async def test_last_starts_in_last_chunk(link: Link, publisher: Publisher, topology: Topology) -> None:
    """The last chunk may have several messages."""
    await fill(publisher, 30)
    last = -1
    async with StreamReader(await link.connection(), topology.log.name, "last") as reader:
        while last < 29:
            last = (await reader.read(100, 5))[-1].offset


async def test_read_is_ordered_with_bounded_buffer(link: Link, publisher: Publisher, topology: Topology) -> None:
    """The broker sends at most ``prefetch`` unacknowledged messages, and the rest of the chunk that it has begun."""
    events = [order_event(topology, "add", {"i": i}) for i in range(3000)]
    await asyncio.gather(*(publisher.publish(event) for event in events))
    seen: list[int] = []
    async with StreamReader(await link.connection(), topology.log.name, "first", prefetch=50) as reader:
        while len(seen) < 3000:
            batch = await reader.read(1000, 5)
            assert 1 <= len(batch) <= 50 + MAX_IN_FLIGHT
            seen += [message.offset for message in batch]
    assert seen == list(range(3000))


async def test_read_returns_at_most_limit(link: Link, publisher: Publisher, topology: Topology) -> None:
    await fill(publisher, 10)
    async with StreamReader(await link.connection(), topology.log.name, "first") as reader:
        sizes = [len(await reader.read(3, 5)) for _ in range(4)]
    assert max(sizes) <= 3


async def test_read_of_empty_tape_times_out(link: Link, topology: Topology) -> None:
    async with StreamReader(await link.connection(), topology.log.name, "first") as reader:
        began = time.monotonic()
        with within(2):
            assert await reader.read(10, timeout=0.2) == []
        assert time.monotonic() - began > 0.15


async def test_start_beyond_end_reads_nothing(link: Link, publisher: Publisher, topology: Topology) -> None:
    await fill(publisher, 3)
    async with StreamReader(await link.connection(), topology.log.name, 500) as reader:
        assert await reader.read(10, timeout=0.3) == []


async def test_new_message_is_read_at_once(link: Link, publisher: Publisher, topology: Topology) -> None:
    async with StreamReader(await link.connection(), topology.log.name, "first") as reader:
        reading = asyncio.create_task(reader.read(10))
        await fill(publisher, 1)
        async with asyncio.timeout(5):
            (message,) = await reading
    assert (message.offset, message.key) == (0, EVENT_KEY)


async def test_missing_tape_raises(link: Link) -> None:
    with pytest.raises(TapeMissing, match="no-such-log"):
        async with StreamReader(await link.connection(), "no-such-log", "first"):
            pass


async def test_read_raises_after_connection_loss(
    link: Link, far_link: Link, proxy: Proxy, publisher: Publisher, topology: Topology
) -> None:
    await fill(publisher, 5)
    async with StreamReader(await far_link.connection(), topology.log.name, "first") as reader:
        assert len(await reader.read(1, 5)) == 1
        proxy.cut()
        await eventually(lambda: not far_link.up)
        with pytest.raises(BrokerUnavailable, match="attach again"):
            for _ in range(10):
                await reader.read(1)


async def test_read_raises_after_tape_is_deleted(link: Link, publisher: Publisher, topology: Topology) -> None:
    await fill(publisher, 1)
    async with StreamReader(await link.connection(), topology.log.name, "first") as reader:
        assert len(await reader.read(10, 5)) == 1
        reading = asyncio.create_task(reader.read(10))
        channel = await (await link.connection()).channel()
        await channel.queue_delete(topology.log.name)
        async with asyncio.timeout(10):
            with pytest.raises(BrokerUnavailable, match="attach again"):
                await reading
