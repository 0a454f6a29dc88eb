"""Sends HTTP requests again and again over many connections, as fast as the server answers.

    python -m benchmarks.rig.load.http_load <url> <method> <paths> <connections> <seconds> [<body>]

``paths``: one or more, separated by commas; each connection has one of them, in turn.
A process of its own, so that the measuring does not share an event loop with anything. Prints JSON: requests a second,
and the median and 99th percentile in milliseconds.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit

WARM_UP: Final = 0.5
"""Seconds that are not counted."""
HEAD_END: Final = b"\r\n\r\n"


class _Requests(asyncio.Protocol):
    """One connection with one request at a time. It parses of an answer only what it needs."""

    def __init__(self, request: bytes, took: list[tuple[float, float]]) -> None:
        self._request, self._took = request, took
        self._transport: asyncio.Transport
        self._received = b""
        self._sent = 0.0
        self.failed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(HEAD_END)
        if not found:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
            self.failed = self._received[:500].decode(errors="replace")
            self._transport.close()
            return
        now = time.perf_counter()
        self._took.append((now, now - self._sent))
        self._received = b""
        self._send()

    def close(self) -> None:
        """End it."""
        self._transport.abort()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


async def load(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> dict[str, float]:
    """Send requests for ``seconds``, and return the figures. Raises RuntimeError at a status other than 200 and 202."""
    loop, address = asyncio.get_running_loop(), urlsplit(url)
    host, port = address.hostname or "", address.port or 80
    took: list[tuple[float, float]] = []
    opened = [
        (await loop.create_connection(partial(_Requests, requests[n % len(requests)], took), host, port))[1]
        for n in range(connections)
    ]
    await asyncio.sleep(WARM_UP)
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    ended = time.perf_counter()
    for each in opened:
        each.close()
        if each.failed:
            raise RuntimeError(each.failed)
    counted = sorted(duration for at, duration in took if begun < at <= ended)
    return {
        "rate": len(counted) / (ended - begun),
        "p50": counted[len(counted) // 2] * 1000,
        "p99": counted[int(len(counted) * 0.99)] * 1000,
    }


def request_bytes(method: str, path: str, body: str = "") -> bytes:
    """Return a whole request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "Content-Type: application/json", "", body]).encode()


def main() -> None:
    """Run one load."""
    url, method, paths, connections, seconds, *body = sys.argv[1:]
    requests = [request_bytes(method, path, *body) for path in paths.split(",")]
    found = asyncio.run(load(url, requests, int(connections), float(seconds)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
