"""The broker is away, silent, or blocks: submissions end in time, readiness shows it, and the API recovers."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.consumer.installation import Rig
from tests.namespaces import some_topology
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, problem, settings_for
from tests.waiting import eventually, within
from tools.brokers.node import PrivateNode

pytestmark = pytest.mark.anyio

ADD = {"type": "add", "payload": {"x": 1}}


@pytest.fixture
async def proxy(broker_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(broker_url) as opened:
        yield opened


@pytest.fixture
async def behind(proxy: Proxy, rig: Rig, view: Store, settings: Settings) -> AsyncIterator[Api]:
    """An API that is connected to the broker through ``proxy``."""
    async with api(settings.model_copy(update={"rabbitmq_url": proxy.url, "publish_timeout": 1.0}), add) as served:
        yield served


async def not_ready(served: Api, part: str) -> str:
    """Return why a part is not ready; empty when it is. The response must come in time."""
    with within(2):
        answer = await served.client.get("/health/ready")
    assert answer.status_code == (200 if answer.json()["ready"] else 503)
    return answer.json()["parts"][part]["reason"] or ""


async def accepted(served: Api) -> bool:
    return (await served.client.post("/jobs", json=ADD)).status_code == 202


async def test_silent_broker_is_noticed_within_five_seconds(behind: Api, proxy: Proxy) -> None:
    assert await not_ready(behind, "broker") == ""
    proxy.hold_requests = proxy.hold_answers = True
    with within(5):
        reason = await eventually(lambda: not_ready(behind, "broker"))
    assert "has not answered" in reason
    assert await not_ready(behind, "tape") != ""
    with within(2):
        problem(await behind.client.post("/jobs", json=ADD), 503, "broker-unavailable")
    assert (await behind.client.get("/metrics")).status_code == 200
    proxy.hold_requests = proxy.hold_answers = False
    await eventually(lambda: accepted(behind))
    await eventually(lambda: _is_ready(behind, "broker"))


async def test_broker_that_answers_late_again_and_again_is_logged_once(
    behind: Api, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobtape.producer.service.broker_watch")
    for _ in range(2):
        proxy.hold_requests = proxy.hold_answers = True
        await eventually(lambda: _says(behind, "has not answered"))
        proxy.hold_requests = proxy.hold_answers = False
        await eventually(lambda: _is_ready(behind, "broker"))
    # Once each; twice on a machine that is so slow that a check between the two was answered in time.
    warned = caplog.text.count("the broker has not answered")
    await eventually(lambda: caplog.text.count("the broker answers in time again") == warned)


async def _says(served: Api, text: str) -> bool:
    return text in await not_ready(served, "broker")


async def _is_ready(served: Api, part: str) -> bool:
    return await not_ready(served, part) == ""


async def test_cut_connection_recovers(behind: Api, proxy: Proxy) -> None:
    proxy.refuse = True
    proxy.cut(reset=True)
    with within(5):
        await eventually(lambda: not_ready(behind, "broker"))
    problem(await behind.client.post("/jobs", json=ADD), 503, "broker-unavailable")
    proxy.refuse = False
    await eventually(lambda: accepted(behind))
    assert await not_ready(behind, "broker") == ""


async def test_repeated_cuts_lose_no_accepted_job(behind: Api, proxy: Proxy, rig: Rig) -> None:
    """Every request gets a response, and every accepted job is on the tape."""
    statuses: list[int] = []
    all_statuses: set[int] = set()
    ids: set[str] = set()

    async def submit() -> None:
        answer = await behind.client.post("/jobs", json=ADD)
        statuses.append(answer.status_code)
        if answer.status_code == 202:
            ids.add(answer.json()["id"])

    for _ in range(5):
        burst = [asyncio.create_task(submit()) for _ in range(40)]
        await eventually(lambda: len(statuses) > 5)
        proxy.cut(reset=True)
        await asyncio.gather(*burst)
        all_statuses |= set(statuses)
        statuses.clear()
    assert all_statuses <= {202, 503}
    assert ids
    await eventually(lambda: ids <= {event.subject for event in rig.events})


async def test_api_starts_without_broker(proxy: Proxy, rig: Rig, view: Store, settings: Settings) -> None:
    proxy.refuse = True
    away = settings.model_copy(update={"rabbitmq_url": proxy.url, "publish_timeout": 0.5})
    async with api(away, add, ready=False) as served:
        await eventually(lambda: _says(served, "no broker at"))
        problem(await served.client.post("/jobs", json=ADD), 503, "broker-unavailable")
        proxy.refuse = False
        await eventually(lambda: accepted(served))


async def test_blocking_broker_ends_submissions_in_time(
    node_without_alarm: PrivateNode, view: Store, sqlite_url: str
) -> None:
    """During a memory alarm the broker does not read from publishers: submissions end with 503 until it is over."""
    node, topology = node_without_alarm, some_topology()
    async with (
        Rig(node.url, topology),
        api(settings_for(node.url, topology, sqlite_url, publish_timeout=1.0), add) as served,
    ):
        assert await accepted(served)
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.00001")

        async def in_force() -> bool:
            return not await accepted(served)

        await eventually(in_force, what="the alarm is in force")
        with within(3):
            problem(await served.client.post("/jobs", json=ADD), 503, "broker-unavailable")
        assert "alarm" in await eventually(lambda: not_ready(served, "broker"))
        assert (await served.client.get("/metrics")).status_code == 200
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.6")
        await eventually(lambda: accepted(served))
