"""Connections whose other side does not read, or is not there any more, are given up by the kernel.

An application can stop sending to such a client, and no more: the server closes the connection only when what is in its
buffers has been read, which may be never. TCP_USER_TIMEOUT (Linux) ends that, and notices a peer that vanished. The
WebSocket protocol takes the socket over as it is.
"""

import asyncio
import socket
from functools import cache
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from jobtape.settings import read_settings

_Protocol: Any = AutoHTTPProtocol


class Impatient(_Protocol):  # type: ignore[misc]  # which protocol it is depends on what is installed
    """uvicorn's own protocol; a connection that reads nothing for JOBTAPE_STALL seconds ends."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """As asyncio calls it."""
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None:
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, _milliseconds())
        super().connection_made(transport)


@cache
def _milliseconds() -> int:
    return round(read_settings().stall * 1000)
