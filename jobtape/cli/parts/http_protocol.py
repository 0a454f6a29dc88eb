"""uvicorn's HTTP protocol with limits, and without chunks for HTTP/1.0 clients.

When a client does not read, an application can only stop sending: the server closes the connection after its buffers
are empty, which may be never. TCP_USER_TIMEOUT (Linux) closes such connections and detects vanished clients. The
WebSocket protocol takes over the same socket with this option.

uvicorn 0.54 on httptools buffers the headers of a request without limit, before it checks the API key (200 MiB in our
test). It also sends chunks to every client, and an HTTP/1.0 client reads the chunk sizes as part of the body; to such a
client an answer of unknown length ends with the connection (RFC 9112, 6.3). uvicorn on h11 does neither.
"""

import asyncio
import socket
import sys
from functools import cache
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from jobtape.settings import read_settings

MAX_UNFINISHED: Final = 64 * 1024
"""The largest number of bytes without complete headers or a piece of the body."""
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
        self._progressed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None:
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, _send_timeout())
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._progressed = False
        super().data_received(data)
        self._unfinished = 0 if self._progressed else self._unfinished + len(data)
        if self._unfinished > MAX_UNFINISHED and not self.transport.is_closing():
            self.transport.write(_REFUSAL)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._progressed = True
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["http_version"] == "1.0":
            _send_without_chunks(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progressed = True
        super().on_message_complete()


@cache
def _send_timeout() -> int:
    """Return JOBTAPE_SEND_TIMEOUT in milliseconds."""
    return round(read_settings().send_timeout * 1000)


def _send_without_chunks(cycle: RequestResponseCycle) -> None:
    """Send the answer to this HTTP/1.0 request without chunks. uvicorn closes the connection after it."""
    send = cycle.send
    unknown = False

    async def unchunked(message: Any) -> None:
        nonlocal unknown
        if message["type"] == "http.response.start":
            unknown = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            if unknown:
                cycle.chunked_encoding = False
                cycle.expected_content_length = sys.maxsize
        elif unknown and not message.get("more_body", False):
            # The cycle expects the last part to have exactly the remaining length.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = unchunked  # type: ignore[method-assign]
