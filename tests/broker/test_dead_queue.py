"""Putting aside what nobody can work on."""

import pytest

from jobtape.broker import declare
from jobtape.broker.dead_queue import REASON_HEADER, publish_dead
from jobtape.broker.link import Link
from jobtape.schemas.topology import Topology
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"x" * 1_000_000])
async def test_the_body_as_it_was_with_its_reason(link: Link, topology: Topology, body: bytes) -> None:
    await publish_dead(link, topology, body, "because " * 200)
    channel = await (await link.connection()).channel()
    queue = await channel.get_queue(topology.dead_queue.name)
    message = await eventually(lambda: queue.get(no_ack=True, fail=False))
    assert message.body == body
    assert message.headers[REASON_HEADER] == ("because " * 200)[:500]
    assert not {"CC", "x-death"} & set(message.headers)


async def test_it_goes_neither_to_the_tape_nor_to_work(link: Link, topology: Topology) -> None:
    await publish_dead(link, topology, b"?", "no job")
    for queue in (topology.log.name, topology.work_queue("default").name):
        found = await declare.depth(await link.connection(), queue)
        assert found is not None
        assert found.messages == 0
