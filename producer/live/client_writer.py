"""What is sent to one client, which may not read it: each piece has its time, and much less once the process stops."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

LAST_WORDS: Final = 1.0
"""Seconds for what is still to be sent when the process stops."""


class ClientStalled(Exception):
    """The client has not read what it was sent in time; nothing can be said to it any more."""


class ClientWriter:
    """``stall``: seconds that one piece may take to be read."""

    def __init__(self, send: Callable[[Any], Awaitable[None]], stall: float) -> None:
        self._send = send
        self._stall = stall
        self._sending: asyncio.Timeout | None = None

    async def send(self, message: Any) -> None:
        """Raises ClientStalled."""
        try:
            async with asyncio.timeout(self._stall) as self._sending:
                await self._send(message)
        except TimeoutError:
            raise ClientStalled from None
        finally:
            self._sending = None

    def hasten(self) -> None:
        """From now on there is little time, for what is being sent too."""
        self._stall = min(self._stall, LAST_WORDS)
        if self._sending is not None:
            self._sending.reschedule(asyncio.get_running_loop().time() + self._stall)
