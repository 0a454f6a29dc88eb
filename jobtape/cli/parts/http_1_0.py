"""Answers of unknown length to HTTP/1.0 clients, which cannot read chunks: they end with the connection.

See RFC 9112, 6.3. uvicorn 0.54 on httptools sends chunks to every client, and an HTTP/1.0 client reads the chunk sizes
as part of the body. uvicorn on h11 does not.
"""

import sys
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def without_chunks(cycle: RequestResponseCycle) -> None:
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
