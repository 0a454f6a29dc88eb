"""A client of ``/ws``, on the ``websockets`` library."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.producer.live_api import LiveApi


class WebSocketClient:
    """The client's end of a connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, **request: Any) -> None:
        await self.socket.send(json.dumps(request))

    async def receive(self, *kinds: str) -> dict[str, Any]:
        """Return the next message of these types; without types, the next one that is no keep-alive."""
        async with asyncio.timeout(20):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                if message["type"] in kinds or (not kinds and message["type"] != "keep-alive"):
                    return message

    async def wait_closed(self) -> tuple[int, str]:
        """Wait until the server closes the connection. Return the code and the reason; drop messages."""
        try:
            async with asyncio.timeout(20):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code, closed.rcvd.reason


@asynccontextmanager
async def open_websocket(live: LiveApi, path: str = "/ws", **options: Any) -> AsyncIterator[WebSocketClient]:
    """Connect to the API of ``live``."""
    async with connect(f"{live.url.replace('http', 'ws')}{path}", max_size=None, **options) as socket:
        yield WebSocketClient(socket)
