"""An answer of unknown length to HTTP/1.0, which knows no chunks: it ends where the connection does (RFC 9112, 6.3).

uvicorn's protocol on httptools sends chunks to every client (0.54, *tried*), and one of HTTP/1.0 reads their sizes as
part of the stream. uvicorn's other protocol, on h11, does not.
"""

import sys
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def without_chunks(cycle: RequestResponseCycle) -> None:
    """Let the answer of this request, which must be of HTTP/1.0, have no chunks.

    uvicorn closes a connection of HTTP/1.0 behind each answer, and says so.
    """
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
            # What the cycle wants to be left of it when the last part comes.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = unchunked  # type: ignore[method-assign]
