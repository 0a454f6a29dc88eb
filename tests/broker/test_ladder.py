"""The delay ladder on a real broker: no job is early, each arrives once, and queues do not affect each other."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from jobtape.broker import declare
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.events import encode
from jobtape.schemas.topology import Topology
from tests.broker.arrivals import Arrivals, arrivals
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

SLACK = 10.0
"""Seconds that a job may be late on a machine under load."""
MANY = 40
"""More than the 32 unconfirmed messages at which at-least-once dead-lettering of a queue stops."""


@pytest.fixture
async def rig(broker_url: str, topology: Topology) -> AsyncIterator[Rig]:
    """Tape and publisher."""
    async with Rig(broker_url, topology) as opened:
        yield opened


async def delayed(rig: Rig, arrived: Arrivals, seconds: float, queue: str = "default") -> str:
    """Publish a job that is due after so many seconds. Return its id."""
    event = order_event(rig.topology, "add", {"x": 1, "y": 1}, queue=queue)
    arrived.expect(event.subject, time.monotonic() + seconds)
    await rig.publisher.publish(event, [delay_key(seconds, queue, rig.topology.delay_levels)])
    return event.subject


@pytest.mark.parametrize("levels", [8, 25])
async def test_delayed_jobs_arrive_once_and_never_early(
    broker_url: str, make_topology: MakeTopology, levels: int
) -> None:
    chance = random.Random(levels)
    async with Rig(broker_url, make_topology("default", delay_levels=levels)) as rig, arrivals(rig) as arrived:
        delays = [round(chance.uniform(0.1, 5), chance.choice([1, 2, 3])) for _ in range(150)]
        await asyncio.gather(*(delayed(rig, arrived, seconds) for seconds in delays))
        await eventually(arrived.complete, 5 + SLACK, what="all have arrived")
        late = arrived.lateness()
        print(f"{levels} levels, late by {[round(late[int(len(late) * part)], 3) for part in (0, 0.5, 0.99)]} s")
        assert late[0] >= 0
        await eventually(lambda: len(rig.events) == len(delays), what="one event each on the tape")
        assert set(Counter(arrived.ids).values()) == {1}
        await eventually(lambda: empty(rig), what="nothing is left on the ladder")


async def test_missing_work_queue_does_not_block_other_delays(rig: Rig) -> None:
    async with arrivals(rig) as arrived:
        missing = [order_event(rig.topology, "add", queue="missing") for _ in range(MANY)]
        key = delay_key(0.2, "missing", rig.topology.delay_levels)
        await asyncio.gather(*(rig.publisher.publish(event, [key]) for event in missing))
        await eventually(lambda: unroutable(rig, MANY), what="work without a queue is on the unroutable queue")
        for seconds in (0.1, 0.3, 0.7):
            await delayed(rig, arrived, seconds)
        await eventually(arrived.complete, SLACK, what="jobs of other queues arrive")
        assert arrived.lateness()[0] >= 0
    channel = await (await rig.link.connection()).channel()
    async with channel:
        queue = await channel.get_queue(rig.topology.unroutable_queue.name, ensure=False)
        kept = [await queue.get(no_ack=True) for _ in range(MANY)]
    assert sorted(message.body for message in kept) == sorted(map(encode, missing))


async def test_work_arrives_when_its_queue_returns_before_it_is_due(rig: Rig) -> None:
    async with arrivals(rig) as arrived:
        await delayed(rig, arrived, 1.5)
        connection = await rig.link.connection()
        channel = await connection.channel()
        async with channel:
            await channel.queue_delete(rig.topology.work_queue("default").name)
        await declare.declare(connection, rig.topology)
        await arrived.attach()
        await eventually(arrived.complete, SLACK)
        assert arrived.lateness()[0] >= 0


async def unroutable(rig: Rig, expected: int) -> bool:
    found = await declare.depth(await rig.link.connection(), rig.topology.unroutable_queue.name)
    return found is not None and found.messages == expected


async def empty(rig: Rig) -> bool:
    connection = await rig.link.connection()
    depths = [
        await declare.depth(connection, rig.topology.delay_queue(level).name)
        for level in range(rig.topology.delay_levels)
    ]
    return all(found is not None and found.messages == 0 for found in depths)
