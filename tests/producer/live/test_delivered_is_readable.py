"""A GET, also at another API process, shows each event that a stream or WebSocket has delivered."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from jobtape.view.store import Store
from tests.producer.live_api import LiveApi, live_api
from tests.producer.sse_client import open_stream
from tests.view.samples import begin, record, submitted, succeeded

pytestmark = pytest.mark.anyio

JOBS = 40


async def assert_readable(other: LiveApi, delivered: dict[str, Any]) -> None:
    answer = await other.api.client.get(f"/jobs/{delivered['subject']}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["cursor"] >= delivered["cursor"]
    if delivered["type"] == "jobtape.job.succeeded":
        assert answer.json()["state"] == "succeeded"


@pytest.mark.parametrize("way", ["sse", "websocket"])
async def test_get_shows_received_events(store: Store, database_url: str, way: str) -> None:
    begin(store)
    orders = [submitted(n) for n in range(JOBS)]

    async def happen() -> None:
        for order in orders:
            await asyncio.to_thread(record, store, order)
            await asyncio.to_thread(record, store, succeeded(order))

    async with live_api(store, database_url) as here, live_api(store, database_url) as there:
        if way == "sse":
            async with open_stream(f"{here.url}/events?after=first") as stream:
                happening = asyncio.create_task(happen())
                for _ in range(2 * JOBS):
                    await assert_readable(there, (await stream.next()).data)
        else:
            async with connect(f"{here.url.replace('http', 'ws')}/ws") as socket:
                await socket.send(json.dumps({"type": "subscribe", "id": "a", "after": "first"}))
                happening = asyncio.create_task(happen())
                delivered = 0
                async with asyncio.timeout(60):
                    while delivered < 2 * JOBS:
                        message = json.loads(await socket.recv())
                        if message["type"] == "event":
                            delivered += 1
                            await assert_readable(there, message["event"])
        await happening
