"""Clients whose connections are cut at random positions get each event once."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from jobtape.schemas.events import JobEvent
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.producer.live_api import LiveApi, live_api
from tests.producer.sse_client import open_stream
from tests.view.samples import begin, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

CUTS = 50
JOBS = 400
AHEAD = 60
"""The most events that are committed before clients receive them."""


class Client:
    """A client that resumes after a cut. ``received``: the ids of the events in the order of arrival."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: list[str] = []
        self.connections = 0

    async def sse(self) -> None:
        """Receive server-sent events, forever."""
        last_id = 0
        while True:
            with suppress(httpx.TransportError):
                async with open_stream(f"{self.url}/events", last_id=last_id) as stream:
                    self.connections += 1
                    while (block := await stream.next_block()) is not None:
                        last_id = stream.last_id or 0
                        if block.data is not None and block.event != "hello":
                            self.received.append(block.event_id)

    async def websocket(self) -> None:
        """Receive from a WebSocket, forever: on the subscription ``all``, beside one without events."""
        after = 0
        while True:
            with suppress(WebSocketException, InvalidHandshake, OSError, EOFError):
                async with connect(f"{self.url.replace('http', 'ws')}/ws") as socket:
                    self.connections += 1
                    await socket.send(json.dumps({"type": "subscribe", "id": "quiet", "events": ["failed"]}))
                    await socket.send(json.dumps({"type": "subscribe", "id": "all", "after": after}))
                    begun = False
                    async for text in socket:
                        message = json.loads(text)
                        match message["type"]:
                            case "event":
                                assert message["id"] == "all"
                                self.received.append(message["event"]["id"])
                                after = message["cursor"]
                            case "subscribed":
                                begun = begun or message["id"] == "all"
                            # About those that have been confirmed: before, it may be the other's position alone.
                            case "keep-alive" if begun and message["cursor"] is not None:
                                after = max(after, message["cursor"])


@pytest.fixture
async def live(view: Store, sqlite_url: str) -> AsyncIterator[LiveApi]:
    begin(view)
    async with live_api(view, sqlite_url, keepalive_interval=0.1) as opened:
        yield opened


@pytest.mark.parametrize("way", [Client.sse, Client.websocket], ids=["sse", "websocket"])
async def test_client_cut_fifty_times_gets_each_event_once(
    live: LiveApi, way: Callable[[Client], Awaitable[None]]
) -> None:
    chance = random.Random(7)
    orders = [submitted(n) for n in range(JOBS)]
    tape: list[JobEvent] = [event for order in orders for event in (order, succeeded(order))]
    async with Proxy(live.url) as proxy:
        client = Client(proxy.url.rstrip("/"))
        listening = asyncio.ensure_future(way(client))
        cutting = asyncio.create_task(_cut(proxy, client, chance, len(tape)))
        try:
            position = 0
            while position < len(tape):
                await eventually(_close_to(client, position), 60, what="events are received")
                step = chance.randint(1, 20)
                record(live.store, *tape[position : position + step])
                position += step
            await eventually(
                lambda: len(client.received) >= len(tape) or listening.done(), 60, what="all events are received"
            )
            cut = await cutting
        finally:
            for task in (listening, cutting):
                task.cancel()
            await asyncio.wait({listening, cutting})
    assert client.received == [event.id for event in tape]
    assert cut >= CUTS


def _close_to(client: Client, position: int) -> Callable[[], bool]:
    return lambda: len(client.received) + AHEAD > position


def _received(client: Client, position: int) -> Callable[[], bool]:
    return lambda: len(client.received) >= position


async def _cut(proxy: Proxy, client: Client, chance: random.Random, events: int) -> int:
    """Cut the connection at fifty positions. Return how many connections there were."""
    cut = 0
    for position in sorted(chance.randrange(events - AHEAD) for _ in range(CUTS)):
        await eventually(_received(client, position), 60)
        for _ in range(chance.randint(0, 30)):
            await asyncio.sleep(0)
        await eventually(lambda: proxy.connections > 0, 60)
        cut += proxy.connections
        proxy.cut(reset=True)
    return cut
