"""A memory alarm on the broker: publishers are told in time, acknowledgements still flow, and then it goes on."""

import asyncio
import time

import pytest

from jobtape.consumer.intake import Delivery, Intake
from jobtape.schemas.errors import BrokerUnavailable
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.rig import Rig, order_event
from tests.ledger import Ledger
from tests.waiting import eventually
from tools.node import PrivateNode

pytestmark = pytest.mark.anyio


async def alarm(node: PrivateNode, on: bool) -> None:
    """Let the broker believe that its memory is full."""
    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.0001" if on else "0.4")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_alarm(node_without_alarm: PrivateNode, node_rig: Rig, store: Store) -> None:
    node, rig, ledger = node_without_alarm, node_rig, Ledger()
    jobs.gate.clear()
    async with rig.projector(store), rig.worker(jobs.ahold, jobs.add):
        running = order_event(rig.topology, "ahold")
        assert await ledger.submit(rig.publisher, running)
        await eventually(lambda: "started" in rig.names(running.subject))
        await alarm(node, True)
        refused = order_event(rig.topology, "add", {"x": 1, "y": 1})
        began = time.monotonic()
        assert not await ledger.submit(rig.publisher, refused, timeout=1.0)
        assert time.monotonic() - began < 3
        jobs.gate.set()
        assert ledger.unknown == [refused.subject]
        await alarm(node, False)
        await rig.outcome(running.subject)
        assert await ledger.submit(rig.publisher, refused), "the same event once more"
        await rig.outcome(refused.subject)
        report = await Checker(rig.url, rig.topology).check(store, ledger)
    assert not report.problems, str(report)


async def test_acknowledgements_flow_during_an_alarm(node_without_alarm: PrivateNode, node_rig: Rig) -> None:
    node, rig = node_without_alarm, node_rig
    taken: list[Delivery] = []
    queue = rig.topology.work_queue("default").name
    for _ in range(3):
        await rig.submit("add")
    async with Intake(await rig.link.connection(), [queue], prefetch=10, deliver=taken.append):
        await eventually(lambda: len(taken) == 3)
    taken.clear()
    consuming = type(rig.link)(rig.url, name="consuming")
    consuming.start()
    async with Intake(await consuming.connection(), [queue], prefetch=10, deliver=taken.append):
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
