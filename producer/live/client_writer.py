"""Sends messages to one client with a time limit for each, because a client may stop reading."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

STOP_TIMEOUT: Final = 1.0
"""Seconds for each message once the process stops."""


class ClientStalled(Exception):
    """The client did not read a message in time. Nothing more can be sent to it."""


class ClientWriter:
    """``stall``: seconds within which the client must read one message."""

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

    def shorten_limit(self) -> None:
        """Apply ``STOP_TIMEOUT`` from now on, also to the message that is being sent."""
        self._stall = min(self._stall, STOP_TIMEOUT)
        if self._sending is not None:
            self._sending.reschedule(asyncio.get_running_loop().time() + self._stall)
