"""An HTTP client that sends bytes unchanged and returns the bytes of the response."""

import asyncio
from dataclasses import dataclass

TIMEOUT = 10.0


@dataclass(frozen=True)
class RawResponse:
    """A response. The names of ``headers`` are in lower case; ``body`` has the bytes of the wire, with chunk sizes."""

    status: int
    headers: dict[str, str]
    body: bytes


async def send_raw(port: int, *parts: bytes, wait: float = TIMEOUT) -> bytes:
    """Send ``parts`` and return what the server sent until it closed the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(wait):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
    finally:
        writer.close()


async def request(port: int, method: str, path: str, *headers: str) -> RawResponse:
    """Send a request on a new connection, which the server closes after the response."""
    lines = [f"{method} {path} HTTP/1.1", "Host: api", "Connection: close", *headers, "", ""]
    return parse_response(await send_raw(port, "\r\n".join(lines).encode("latin-1")))


def parse_response(raw: bytes) -> RawResponse:
    """Parse a response. Everything after the headers is the body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return RawResponse(int(status.split()[1]), headers, body)
