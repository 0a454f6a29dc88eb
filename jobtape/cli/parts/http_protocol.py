"""A connection whose other side does not read, is not there any more, or sends what never becomes a request, ends.

An application can stop sending to a client that does not read, and no more: the server closes the connection only when
what is in its buffers has been read, which may be never. TCP_USER_TIMEOUT (Linux) ends that, and notices a peer that
vanished. The WebSocket protocol takes the socket over as it is.

uvicorn keeps what comes before the end of a request's headers, however much that is (0.54 with httptools, *tried*: 200
MiB, before any key is asked for). h11 has a limit, which is ours too.
"""

import asyncio
import socket
from functools import cache
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jobtape.cli.parts.http_1_0 import without_chunks
from jobtape.settings import read_settings

MAX_UNFINISHED: Final = 64 * 1024
"""Bytes that may come without the headers of a request, or a piece of its body, being complete."""
_TOO_LARGE: Final = b"the request line and headers are larger than %d bytes: send smaller ones\n" % MAX_UNFINISHED
_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_TOO_LARGE), _TOO_LARGE)
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with two limits.

    A connection whose client reads nothing for JOBTAPE_SEND_TIMEOUT seconds ends. A request whose headers exceed
    ``MAX_UNFINISHED`` bytes is refused with 431.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unfinished = 0
        self._got_on = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """As asyncio calls it."""
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None:
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, _milliseconds())
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        self._got_on = False
        super().data_received(data)
        self._unfinished = 0 if self._got_on else self._unfinished + len(data)
        if self._unfinished > MAX_UNFINISHED and not self.transport.is_closing():
            self.transport.write(_REFUSAL)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """As the parser calls it."""
        self._got_on = True
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["http_version"] == "1.0":
            without_chunks(self.cycle)

    def on_body(self, body: bytes) -> None:
        """As the parser calls it."""
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As the parser calls it."""
        self._got_on = True
        super().on_message_complete()


@cache
def _milliseconds() -> int:
    return round(read_settings().send_timeout * 1000)
