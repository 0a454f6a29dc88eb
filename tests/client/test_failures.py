"""Tests that one submission is one job when the network fails or the API is unavailable."""

import asyncio

import pytest

from jobtape import Client, Options
from jobtape.client import NoAnswer, NotConfirmed, Unavailable, Unreachable
from jobtape.schemas.events import Submitted
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.client.conftest import RunningApi
from tests.client.jobs import add
from tests.consumer.installation import Rig
from tests.producer.conftest import rig, settings, topology, view
from tests.producer.running_api import api, serve
from tests.waiting import eventually
from tools.processes.ports import free_port

pytestmark = pytest.mark.anyio

__all__ = ["rig", "settings", "topology", "view"]


def jobs_with(rig: Rig, x: int) -> set[str]:
    """Return the ids of the jobs on the tape with this payload."""
    return {
        event.subject for event in rig.events if isinstance(event, Submitted) and event.data.order.payload["x"] == x
    }


async def test_lost_answer_makes_only_one_job(client: Client, network: Proxy, running_api: RunningApi) -> None:
    network.hold_answers = True
    submitting = asyncio.create_task(client.submit(add, x=71))
    await eventually(lambda: network.held, what="the API has answered")
    await eventually(lambda: jobs_with(running_api.rig, 71), what="the job is on the tape")
    network.hold_answers = False
    network.cut(reset=True)
    handle = await submitting
    assert network.seen > 1
    await client.get(handle)
    await running_api.rig.read_to_end()
    assert jobs_with(running_api.rig, 71) == {handle.id}, "one job for two requests"


async def test_submission_without_any_answer_is_not_confirmed(network: Proxy, running_api: RunningApi) -> None:
    network.hold_answers = True

    async def cut_every_answer() -> None:
        while True:
            await eventually(lambda: network.held and network.connections, what="the client sends a request")
            network.cut(reset=True)

    cutting = asyncio.create_task(cut_every_answer())
    try:
        async with Client(network.url, patience=1.0) as client:
            with pytest.raises(NotConfirmed, match="submit it again with") as raised:
                await client.submit(add, x=72)
    finally:
        cutting.cancel()
    network.hold_answers = False
    async with Client(network.url) as client:
        handle = await client.submit_with(Options(idempotency_key=raised.value.idempotency_key), add, x=72)
    await running_api.rig.read_to_end()
    assert jobs_with(running_api.rig, 72) == {handle.id}


async def test_submission_before_api_dies_is_not_confirmed(running_api: RunningApi) -> None:
    """The API dies before it answers. It may have submitted the job, although it is unreachable afterwards."""
    async with Proxy(running_api.url) as network, Client(network.url, patience=1.0) as client:
        network.hold_answers = True
        submitting = asyncio.create_task(client.submit(add, x=73))
        await eventually(lambda: network.held, what="the API has answered")
        network.leave()
        with pytest.raises(NotConfirmed, match="submit it again with") as raised:
            await submitting
    assert isinstance(raised.value.__cause__, NoAnswer)
    async with Client(running_api.url) as client:
        handle = await client.submit_with(Options(idempotency_key=raised.value.idempotency_key), add, x=73)
    await running_api.rig.read_to_end()
    assert jobs_with(running_api.rig, 73) == {handle.id}


async def test_submission_waits_for_api_to_start(client: Client, network: Proxy) -> None:
    network.refuse = True
    submitting = asyncio.create_task(client.submit(add, x=1))
    await asyncio.wait([submitting], timeout=0.3)
    assert not submitting.done()
    network.refuse = False
    await submitting


async def test_missing_api_is_unreachable() -> None:
    async with Client(f"http://127.0.0.1:{free_port()}", patience=0.3) as client:
        with pytest.raises(Unreachable, match="start one with `jobtape up`, or set its address"):
            await client.submit(add, x=1)


async def test_unavailable_api_is_retried(settings: Settings, rig: Rig, view: Store) -> None:
    async with api(settings, add) as served, serve(served.app, lifespan="off") as port:
        await rig.delete_tape()
        async with Client(f"http://127.0.0.1:{port}", patience=0.3) as short_client:

            async def refused() -> bool:
                try:
                    await short_client.submit(add, x=1)
                except NotConfirmed as error:
                    return isinstance(error.__cause__, Unavailable) and error.__cause__.kind == "tape-missing"
                return False

            await eventually(refused, what="the API answers that the tape is missing")
        async with Proxy(f"http://127.0.0.1:{port}") as network, Client(network.url, patience=3.0) as client:
            submitting = asyncio.create_task(client.submit(add, x=1))
            await eventually(lambda: network.answered, what="the API has answered that the tape is missing")
            network.leave()
            with pytest.raises(NotConfirmed) as raised:
                await submitting
            assert isinstance(raised.value.__cause__, Unavailable), (
                "the API is unreachable now, but it has answered before"
            )
        async with Client(f"http://127.0.0.1:{port}") as client:
            submitting = asyncio.create_task(client.submit(add, x=2))
            await rig.create_tape()
            assert (await submitting).job.payload == {"x": 2, "y": 0}
