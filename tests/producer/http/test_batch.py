"""Many submissions in one request."""

import asyncio
import json
from typing import Any

import pytest

from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, problem, settings_for
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

NDJSON = {"Content-Type": "application/x-ndjson"}


def an_add(x: Any) -> dict[str, Any]:
    return {"type": "add", "payload": {"x": x}}


async def test_items_have_outcomes_in_order(served: Api, rig: Rig) -> None:
    items = [an_add(1), an_add("one"), an_add(2), {"type": "nope", "payload": {}}, 5, an_add(3)]
    answer = await served.client.post("/jobs/batch", json=items)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["accepted"], body["refused"], body["unknown"]) == (3, 3, 0)
    assert [item["status"] for item in body["items"]] == [
        *("accepted", "refused", "accepted", "refused", "refused", "accepted")
    ]
    assert body["items"][1]["problem"]["errors"][0]["pointer"] == "/payload/x"
    await eventually(lambda: len(rig.events) == 3)
    payloads = [rig.of(body["items"][n]["id"])[0].data.order.payload for n in (0, 2, 5)]  # type: ignore[union-attr]
    assert payloads == [{"x": 1}, {"x": 2}, {"x": 3}]


async def test_ndjson_body(served: Api, rig: Rig) -> None:
    lines = [json.dumps(an_add(n)).encode() for n in range(3)]
    sent = b"\r\n".join([lines[0], b"", lines[1], b"{broken", lines[2]]) + b"\n"
    body = (await served.client.post("/jobs/batch", content=sent, headers=NDJSON)).json()
    assert [item["status"] for item in body["items"]] == ["accepted", "accepted", "refused", "accepted"]


async def test_largest_batch(settings: Settings, rig: Rig) -> None:
    lines = b"\n".join(json.dumps(an_add(n)).encode() for n in range(10_000))
    async with api(settings.model_copy(update={"publish_timeout": 30.0})) as served:
        body = (await served.client.post("/jobs/batch", content=lines, headers=NDJSON, timeout=120)).json()
    assert (body["accepted"], body["refused"], body["unknown"]) == (10_000, 0, 0), body["items"][-1]
    assert len({item["id"] for item in body["items"]}) == 10_000
    await eventually(lambda: len(rig.events) == 10_000, timeout=60)


async def test_batch_without_tape_is_refused(settings: Settings) -> None:
    async with api(settings, add, ready=False) as served:
        await eventually(lambda: served.producer.watch.broker_fault is None)
        problem(await served.client.post("/jobs/batch", json=[an_add(1)]), 503, "tape-missing")


async def test_unconfirmed_items_are_unknown(rig: Rig, view: Store, broker_url: str, sqlite_url: str) -> None:
    """What was in flight is unknown, what was not sent is refused, and the answer comes in time."""
    async with Proxy(broker_url) as proxy:
        settings = settings_for(proxy.url, rig.topology, sqlite_url, publish_timeout=1.0)
        async with api(settings, add) as served:
            await served.submit()  # so that the channel is open
            await eventually(lambda: rig.events)
            proxy.hold_answers = True
            body = (await served.client.post("/jobs/batch", json=[an_add(n) for n in range(2000)])).json()
            assert body["accepted"] == 0
            assert body["unknown"] > 0
            assert body["refused"] == 2000 - body["unknown"]
            (kind,) = {item["problem"]["type"] for item in body["items"] if item["status"] == "refused"}
            assert kind == "urn:jobtape:problem:broker-unavailable"
            unknown = {item["id"] for item in body["items"] if item["status"] == "unknown"}
            await eventually(lambda: len(rig.events) > 1)
            assert {event.subject for event in rig.events[1:]} <= unknown


async def test_items_are_published_again_after_a_lost_connection(
    rig: Rig, view: Store, broker_url: str, sqlite_url: str
) -> None:
    async with Proxy(broker_url) as proxy:
        settings = settings_for(proxy.url, rig.topology, sqlite_url)
        async with api(settings, add) as served:
            await served.submit()
            await eventually(lambda: rig.events)
            proxy.hold_answers = True
            held = proxy.held
            posting = asyncio.create_task(served.client.post("/jobs/batch", json=[an_add(n) for n in range(2000)]))
            await eventually(lambda: proxy.held > held, what="the broker has confirmed items")
            proxy.hold_answers = False
            proxy.cut()
            items = (await posting).json()["items"]
            assert [item["status"] for item in items] == ["accepted"] * 2000
            submitted = {item["id"] for item in items}
            assert len(submitted) == 2000
            await eventually(lambda: {event.subject for event in rig.events[1:]} == submitted)


async def test_batch_without_broker_is_refused(broker_url: str, settings: Settings) -> None:
    async with Proxy(broker_url) as proxy:
        proxy.refuse = True
        away = settings.model_copy(update={"rabbitmq_url": proxy.url, "publish_timeout": 0.5})
        async with api(away, add, ready=False) as served:
            details = problem(await served.client.post("/jobs/batch", json=[an_add(1)]), 503, "broker-unavailable")
            assert "nothing was submitted" in details["detail"]
