"""A client of the WebSocket, on the ``websockets`` library."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.producer.live_api import Live


class Spoken:
    """A client's side."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def ask(self, **request: Any) -> None:
        await self.socket.send(json.dumps(request))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """The next message, of these kinds when some are named, otherwise any but a keep-alive."""
        async with asyncio.timeout(20):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                if message["type"] in kinds or (not kinds and message["type"] != "keep-alive"):
                    return message

    async def closed(self) -> tuple[int, str]:
        """With which code and why it is closed; what comes before is passed over."""
        try:
            async with asyncio.timeout(20):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd.code, closed.rcvd.reason


@asynccontextmanager
async def translating_errors(live: Live, path: str = "/ws", **options: Any) -> AsyncIterator[Spoken]:
    """Connected to it."""
    async with connect(f"{live.url.replace('http', 'ws')}{path}", max_size=None, **options) as socket:
        yield Spoken(socket)
