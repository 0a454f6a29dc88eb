"""Declaring what the topology describes, and removing it."""

from dataclasses import replace

import aiormq.exceptions
import pytest

from jobtape.broker import declare
from jobtape.broker.link import Link
from jobtape.broker.publisher import Publisher
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.topology import TapeRetention, Topology
from tests.conftest import MakeTopology
from tests.consumer.installation import order_event

pytestmark = pytest.mark.anyio


async def test_again_changes_nothing(link: Link, publisher: Publisher, topology: Topology) -> None:
    await publisher.publish(order_event(topology, "add"), ["run.default"])
    connection = await link.connection()
    for _ in range(2):
        await declare.declare(connection, topology)
        assert await declare.create_log(connection, topology) is False
    found = await declare.depth(connection, topology.work_queue("default").name)
    assert found is not None
    assert (found.messages, found.consumers) == (1, 0)


async def test_other_properties_are_an_error_that_says_what_to_do(link: Link, make_topology: MakeTopology) -> None:
    topology = make_topology("mine")
    channel = await (await link.connection()).channel()
    await channel.declare_queue(topology.work_queue("mine").name, durable=True)
    with pytest.raises(JobtapeError, match=r"other properties.*run\.mine.*JOBTAPE_NAMESPACE"):
        await declare.declare(await link.connection(), topology)
    assert link.up, "the connection is still good"


async def test_the_tape_is_created_by_create_log_alone(link: Link, make_topology: MakeTopology) -> None:
    topology = make_topology()
    connection = await link.connection()
    await declare.declare(connection, topology)
    assert not await declare.log_exists(connection, topology)
    assert await declare.create_log(connection, topology)
    assert await declare.log_exists(connection, topology)


async def test_a_tape_that_exists_may_have_another_retention(link: Link, topology: Topology) -> None:
    """Declared arguments cannot be changed; settings may have been since."""
    other = replace(topology, retention=TapeRetention(max_bytes=1_000_000))
    await declare.declare(await link.connection(), other)
    assert await declare.create_log(await link.connection(), other) is False


async def test_a_lost_binding_of_the_tape_is_made_again(link: Link, publisher: Publisher, topology: Topology) -> None:
    connection = await link.connection()
    channel = await connection.channel()
    under = await channel.get_underlay_channel()
    await under.queue_unbind(topology.log.name, topology.events.name, "#")
    await declare.declare(connection, topology)
    await publisher.publish(order_event(topology, "add"))


async def test_removing_a_namespace_touches_nothing_else(
    broker_url: str, link: Link, make_topology: MakeTopology
) -> None:
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


def test_a_queue_without_a_leader_is_not_missing() -> None:
    """What RabbitMQ says in the two cases."""
    gone = "NOT_FOUND - no queue 'ns.log' in vhost '/'"
    asleep = "NOT_FOUND - home node 'rabbit@host' of durable queue 'ns.log' in vhost '/' is down or inaccessible"
    assert declare.is_missing(aiormq.exceptions.ChannelNotFoundEntity(gone))
    assert not declare.is_missing(aiormq.exceptions.ChannelNotFoundEntity(asleep))
