"""Live subscriptions when the broker dies: both kinds hear on, and a named one hears again what was not settled."""

import asyncio

import pytest

from jobtape import subscribe
from jobtape.settings import Settings
from tests.consumer.background_subscriber import listening, results
from tests.consumer.installation import Rig
from tests.consumer.relay_messages import publish_event
from tests.faults.test_broker_dies import REMEMBER
from tests.view.samples import submitted, succeeded
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio


async def tell(rig: Rig, *numbers: int) -> None:
    for n in numbers:
        await publish_event(rig, succeeded(submitted(n), n), n + 1)


async def test_the_broker_is_killed(node: PrivateNode, node_rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig = node_rig
    settings = Settings(rabbitmq_url=rig.url, namespace=rig.topology.namespace)
    async with (
        subscribe(name="billing", settings=settings) as named,
        listening(subscribe(settings=settings)) as ephemeral,
    ):
        await asyncio.to_thread(node.ctl, "eval", REMEMBER)
        await tell(rig, 1, 2, 3)
        await eventually(lambda: results(ephemeral) == [1, 2, 3])
        assert [(await anext(named)).result for _ in range(2)] == [1, 2]
        await asyncio.to_thread(node.kill)
        await eventually(lambda: rig.link.trouble)
        await asyncio.to_thread(node.start)
        async with asyncio.timeout(60):
            await rig.link.connection()
            # 2 was being worked on: it is settled by now and no longer wanted when it comes again, as 3 does.
            assert (await anext(named)).result == 3
            await tell(rig, 4, 5)
            assert [(await anext(named)).result for _ in range(2)] == [4, 5]
        await eventually(lambda: set(results(ephemeral)) >= {1, 2, 3, 4, 5}, 30)
    assert results(ephemeral) == [1, 2, 3, 4, 5]
    assert "may have missed" not in caplog.text


async def test_two_connections_are_lost_in_the_middle_of_a_body(node: PrivateNode, node_rig: Rig) -> None:
    rig = node_rig
    settings = Settings(rabbitmq_url=rig.url, namespace=rig.topology.namespace)
    async with subscribe(name="billing", prefetch=1, settings=settings) as received:
        await tell(rig, 1, 2)
        async with asyncio.timeout(60):
            for expected in (1, 2):
                assert (await anext(received)).result == expected
                await asyncio.to_thread(node.ctl, "close_all_connections", "a test")
                await eventually(lambda: rig.link.trouble is not None)
                await rig.link.connection()
            await tell(rig, 3)
            assert (await anext(received)).result == 3
