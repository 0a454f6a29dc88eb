"""Delays go on after the broker stopped or was killed, with Jobtape's ``advanced.config``.

Without that setting RabbitMQ 3.10 dead-letters nothing for up to three minutes.
"""

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.broker.arrivals import arrivals
from tests.broker.test_ladder import delayed, empty
from tests.consumer.installation import Rig
from tests.faults.test_broker_dies import SYNC_DECLARATIONS
from tests.namespaces import some_topology
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio

RESUMES_WITHIN = 15.0
"""Seconds after the broker has started again."""


@pytest.mark.parametrize(("name", "end"), [("stopped", PrivateNode.stop), ("killed", PrivateNode.kill)])
async def test_delays_go_on_after_a_restart(node: PrivateNode, name: str, end: Callable[[PrivateNode], None]) -> None:
    async with Rig(node.url, some_topology()) as rig, arrivals(rig) as arrived:
        await asyncio.to_thread(node.ctl, "eval", SYNC_DECLARATIONS)
        # Due before, during and after the outage, on every level and between levels.
        await asyncio.gather(*(delayed(rig, arrived, 0.12 * n) for n in range(1, 80)))
        await eventually(lambda: arrived.ids, what="the first has arrived")
        await asyncio.to_thread(end, node)
        await eventually(lambda: rig.link.trouble)
        await asyncio.to_thread(node.start)
        back = time.monotonic()
        await arrived.attach()
        await eventually(
            arrived.complete, RESUMES_WITHIN + 5, what=f"all have arrived; missing {len(arrived.missing())}"
        )
        late = arrived.lateness(since=back)
        print(f"{name}: the last {late[-1]:.1f} s after its time or the broker's return")
        assert arrived.lateness()[0] >= 0
        assert late[-1] < RESUMES_WITHIN
        await delayed(rig, arrived, 0.3)
        await eventually(arrived.complete, RESUMES_WITHIN, what="new delays work")
        await eventually(lambda: empty(rig))
