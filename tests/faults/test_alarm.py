"""Tests a memory alarm on the broker: submissions fail in time, acknowledgements work, and jobs continue afterwards."""

import asyncio

import pytest
from aiormq import spec

from jobtape.broker.confirmed_channel import ConfirmedChannel
from jobtape.broker.link import BROKER_ERRORS
from jobtape.broker.queue_consumer import Delivery, QueueConsumer
from jobtape.producer.service.broker_watch import BrokerWatch
from jobtape.schemas.errors import BrokerUnavailable
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.ledger import Ledger
from tests.waiting import eventually, within
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio

Properties = spec.Basic.Properties


async def alarm(node: PrivateNode, on: bool) -> None:
    """Switch the memory alarm of the broker on or off."""
    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.0001" if on else "0.4")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_submission_fails_in_time_during_an_alarm(
    node_without_alarm: PrivateNode, node_rig: Rig, store: Store
) -> None:
    node, rig, ledger = node_without_alarm, node_rig, Ledger()
    jobs.gate.clear()
    async with rig.projector(store), rig.worker(jobs.ahold, jobs.add):
        running = order_event(rig.topology, "ahold")
        assert await ledger.submit(rig.publisher, running)
        await eventually(lambda: "started" in rig.names(running.subject))
        await alarm(node, True)
        refused = order_event(rig.topology, "add", {"x": 1, "y": 1})
        with within(3):
            assert not await ledger.submit(rig.publisher, refused, timeout=1.0)
        jobs.gate.set()
        assert ledger.unknown == [refused.subject]
        await alarm(node, False)
        await rig.outcome(running.subject)
        assert await ledger.submit(rig.publisher, refused), "the same event can be submitted again"
        await rig.outcome(refused.subject)
        report = await Checker(rig.url, rig.topology).check(store, ledger)
    assert not report.problems, str(report)


async def test_waiting_publishes_end_when_a_blocked_connection_is_lost(
    node_without_alarm: PrivateNode, node_rig: Rig
) -> None:
    """A channel that is being opened must not wait on a lost connection for the end of the alarm."""
    node = node_without_alarm
    async with Proxy(node.url) as proxy:
        watch = BrokerWatch(proxy.url, node_rig.topology)
        watch.start()
        await watch.link.connection()
        blocked = ConfirmedChannel(watch.link, "")
        await blocked.publish(b"", "nowhere", Properties(message_id="1"), mandatory=False)
        await alarm(node, True)
        # A publish blocks its connection, with all other channels on it.
        waiting = blocked.publish(b"", "nowhere", Properties(message_id="2"), mandatory=False)
        opening = ConfirmedChannel(watch.link, node_rig.topology.events.name)
        await eventually(lambda: watch.broker_fault, what="the watch reports the alarm")
        late = opening.publish(b"", "x", Properties(message_id="3"), mandatory=False)
        await asyncio.sleep(0)
        proxy.cut()
        await asyncio.wait({waiting, late}, timeout=20)
        assert waiting.done()
        assert late.done()
        assert isinstance(late.exception(), BROKER_ERRORS)
        await alarm(node, False)
        await eventually(lambda: watch.broker_fault is None, what="the watch reports the end of the alarm")
        await opening.publish(b"", "x", Properties(message_id="4"), mandatory=False)
        await watch.close()


async def test_acknowledgements_work_during_an_alarm(node_without_alarm: PrivateNode, node_rig: Rig) -> None:
    node, rig = node_without_alarm, node_rig
    taken: list[Delivery] = []
    queue = rig.topology.work_queue("default").name
    for _ in range(3):
        await rig.submit("add")
    async with QueueConsumer(await rig.link.connection(), [queue], prefetch=10, deliver=taken.append):
        await eventually(lambda: len(taken) == 3)
    taken.clear()
    consuming = type(rig.link)(rig.url, name="consuming")
    consuming.start()
    async with QueueConsumer(await consuming.connection(), [queue], prefetch=10, deliver=taken.append):
        await eventually(lambda: len(taken) == 3)
        await alarm(node, True)
        with pytest.raises(BrokerUnavailable):
            await rig.publisher.publish(order_event(rig.topology, "add"), timeout=0.5)
        for delivery in taken:
            await delivery.ack()

        async def settled() -> bool:
            listed = await asyncio.to_thread(node.ctl, "list_queues", "name", "messages_unacknowledged")
            return f"{queue}\t0" in listed

        await eventually(settled, what="the broker has the acknowledgements")
    await consuming.close()
