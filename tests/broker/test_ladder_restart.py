"""The ladder goes on after its broker stopped or died, on the RabbitMQ of this machine with our ``advanced.config``.

Without that setting a 3.10 stands still for up to three minutes.
"""

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.broker.arrivals import arrivals
from tests.broker.test_ladder import delayed, empty
from tests.consumer.installation import Rig
from tests.faults.test_broker_dies import REMEMBER
from tests.namespaces import some_topology
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio

GOES_ON_WITHIN = 15.0
"""Seconds after the broker's return."""


@pytest.mark.parametrize(("name", "end"), [("stopped", PrivateNode.stop), ("killed", PrivateNode.kill)])
async def test_delays_go_on_after_a_restart(node: PrivateNode, name: str, end: Callable[[PrivateNode], None]) -> None:
    async with Rig(node.url, some_topology()) as rig, arrivals(rig) as arrived:
        await asyncio.to_thread(node.ctl, "eval", REMEMBER)
        # Due before, while it is away, and afterwards; on every level and between levels.
        await asyncio.gather(*(delayed(rig, arrived, 0.12 * n) for n in range(1, 80)))
        await eventually(lambda: arrived.ids, what="the first has come")
        await asyncio.to_thread(end, node)
        await eventually(lambda: rig.link.trouble)
        await asyncio.to_thread(node.start)
        back = time.monotonic()
        await arrived.attach()
        await eventually(arrived.complete, GOES_ON_WITHIN + 5, what=f"all have come; missing {len(arrived.missing())}")
        late = arrived.lateness(since=back)
        print(f"{name}: the last {late[-1]:.1f} s after its time or the broker's return")
        assert arrived.lateness()[0] >= 0
        assert late[-1] < GOES_ON_WITHIN
        await delayed(rig, arrived, 0.3)
        await eventually(arrived.complete, GOES_ON_WITHIN, what="new delays work as before")
        await eventually(lambda: empty(rig))
