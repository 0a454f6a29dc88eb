"""Tests that live subscriptions continue when the broker is killed, and get unacknowledged events again."""

import asyncio

import pytest

from jobtape import subscribe
from jobtape.settings import Settings
from tests.consumer.background_subscriber import listening, results
from tests.consumer.installation import Rig
from tests.consumer.relay_messages import publish_event
from tests.faults.load import sync_declarations
from tests.view.samples import submitted, succeeded
from tests.waiting import eventually
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio


async def publish(rig: Rig, *numbers: int) -> None:
    for n in numbers:
        await publish_event(rig, succeeded(submitted(n), n), n + 1)


async def test_subscriptions_continue_when_the_broker_was_killed(
    node: PrivateNode, node_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = node_rig
    settings = Settings(rabbitmq_url=rig.url, namespace=rig.topology.namespace)
    async with (
        subscribe(name="billing", settings=settings) as named,
        listening(subscribe(settings=settings)) as ephemeral,
    ):
        await sync_declarations(node)
        await publish(rig, 1, 2, 3)
        await eventually(lambda: results(ephemeral) == [1, 2, 3])
        assert [(await anext(named)).result for _ in range(2)] == [1, 2]
        await asyncio.to_thread(node.kill)
        await eventually(lambda: rig.link.fault)
        await asyncio.to_thread(node.start)
        async with asyncio.timeout(60):
            await rig.link.connection()
            # 2 was being processed, and is acknowledged now. Its second delivery is dropped as a repeat.
            assert (await anext(named)).result == 3
            await publish(rig, 4, 5)
            assert [(await anext(named)).result for _ in range(2)] == [4, 5]
        await eventually(lambda: set(results(ephemeral)) >= {1, 2, 3, 4, 5})
    assert results(ephemeral) == [1, 2, 3, 4, 5]
    assert "may have missed" not in caplog.text


async def test_subscription_continues_when_connections_are_lost_during_a_body(node: PrivateNode, node_rig: Rig) -> None:
    rig = node_rig
    settings = Settings(rabbitmq_url=rig.url, namespace=rig.topology.namespace)
    async with subscribe(name="billing", prefetch=1, settings=settings) as received:
        await publish(rig, 1, 2)
        async with asyncio.timeout(60):
            for expected in (1, 2):
                assert (await anext(received)).result == expected
                await asyncio.to_thread(node.ctl, "close_all_connections", "a test")
                await eventually(lambda: rig.link.fault is not None)
                await rig.link.connection()
            await publish(rig, 3)
            assert (await anext(received)).result == 3
