"""A network that fails, and an API that cannot answer just now: one job for one submission all the same."""

import asyncio

import pytest

from jobtape import Client, Options
from jobtape.client import NoAnswer, NotConfirmed, Unavailable, Unreachable
from jobtape.schemas.events import Submitted
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.client.conftest import Place
from tests.client.jobs import add
from tests.consumer.installation import Rig
from tests.producer.conftest import rig, settings, topology, view
from tests.producer.running_api import api, listening
from tests.waiting import eventually
from tools.processes.ports import free_port

pytestmark = pytest.mark.anyio

__all__ = ["rig", "settings", "topology", "view"]


def jobs_with(rig: Rig, x: int) -> set[str]:
    """Those on the tape with this payload."""
    return {
        event.subject for event in rig.events if isinstance(event, Submitted) and event.data.order.payload["x"] == x
    }


async def test_an_answer_that_got_lost(client: Client, network: Proxy, place: Place) -> None:
    network.hold_answers = True
    submitting = asyncio.create_task(client.submit(add, x=71))
    await eventually(lambda: network.held, what="the API has answered")
    await eventually(lambda: jobs_with(place.rig, 71), what="the job is on the tape")
    network.hold_answers = False
    network.cut(reset=True)
    handle = await submitting
    assert network.seen > 1
    await client.get(handle)
    assert jobs_with(place.rig, 71) == {handle.id}, "asked twice, one job"


async def test_no_answer_at_all(network: Proxy, place: Place) -> None:
    network.hold_answers = True

    async def cut_whatever_is_said() -> None:
        while True:
            await eventually(lambda: network.held and network.connections, what="it asks")
            network.cut(reset=True)

    cutting = asyncio.create_task(cut_whatever_is_said())
    try:
        async with Client(network.url, patience=1.0) as client:
            with pytest.raises(NotConfirmed, match="submit it again with") as raised:
                await client.submit(add, x=72)
            cutting.cancel()
            network.hold_answers = False
            handle = await client.submit_with(Options(idempotency_key=raised.value.idempotency_key), add, x=72)
    finally:
        cutting.cancel()
    await eventually(lambda: jobs_with(place.rig, 72), what="it is on the tape")
    assert jobs_with(place.rig, 72) == {handle.id}


async def test_no_answer_and_then_nobody_there(place: Place) -> None:
    """The API dies before it answers: that nobody is there later doesn't say that nothing was done."""
    async with Proxy(place.url) as network, Client(network.url, patience=1.0) as client:
        network.hold_answers = True
        submitting = asyncio.create_task(client.submit(add, x=73))
        await eventually(lambda: network.held, what="the API has answered")
        network.leave()
        with pytest.raises(NotConfirmed, match="submit it again with") as raised:
            await submitting
    assert isinstance(raised.value.__cause__, NoAnswer)
    async with Client(place.url) as client:
        handle = await client.submit_with(Options(idempotency_key=raised.value.idempotency_key), add, x=73)
    await eventually(lambda: jobs_with(place.rig, 73), what="it is on the tape")
    assert jobs_with(place.rig, 73) == {handle.id}


async def test_an_api_that_is_started_meanwhile(client: Client, network: Proxy) -> None:
    network.refuse = True
    submitting = asyncio.create_task(client.submit(add, x=1))
    await asyncio.wait([submitting], timeout=0.3)
    assert not submitting.done()
    network.refuse = False
    await submitting


async def test_nobody_is_there() -> None:
    async with Client(f"http://127.0.0.1:{free_port()}", patience=0.3) as client:
        with pytest.raises(Unreachable, match="start one with `jobtape up`, or set its address"):
            await client.submit(add, x=1)


async def test_not_just_now(settings: Settings, rig: Rig, view: Store) -> None:
    async with api(settings, add) as served, listening(served.app, lifespan="off") as port:
        await rig.delete_tape()
        async with Client(f"http://127.0.0.1:{port}", patience=0.3) as hasty:

            async def refused() -> bool:
                try:
                    await hasty.submit(add, x=1)
                except NotConfirmed as error:
                    return isinstance(error.__cause__, Unavailable) and error.__cause__.kind == "tape-missing"
                return False

            await eventually(refused, what="the API has noticed")
        async with Proxy(f"http://127.0.0.1:{port}") as network, Client(network.url, patience=3.0) as left_alone:
            submitting = asyncio.create_task(left_alone.submit(add, x=1))
            await eventually(lambda: network.answered, what="it was told that the tape is missing")
            network.leave()
            with pytest.raises(NotConfirmed) as raised:
                await submitting
            assert isinstance(raised.value.__cause__, Unavailable), "nobody is there now, but somebody was"
        async with Client(f"http://127.0.0.1:{port}") as client:
            submitting = asyncio.create_task(client.submit(add, x=2))
            await rig.create_tape()
            assert (await submitting).job.payload == {"x": 2, "y": 0}
