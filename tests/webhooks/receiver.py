"""A local HTTP server that receives webhooks, and answers as the path says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cyBmb3Igd2ViaG9va3M="


@dataclass(frozen=True, slots=True)
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """``/204`` and the like answer that status, ``/hang`` nothing, ``/redirect`` leads to ``/204`` of this server, and
    ``/endless`` never stops answering. ``answers``: by path, a function that returns the lines of the next answer.
    """

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    answers: dict[str, Callable[[], str]] = field(default_factory=dict)
    connections: int = 0

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def at(self, path: str) -> list[Received]:
        """Return the requests to this path so far."""
        return [each for each in self.requests if each.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await reader.readexactly(int(headers["content-length"]))
            path = head[0].split(" ")[1]
            self.requests.append(Received(path, headers, body))
            if path == "/hang":
                await reader.read()  # until the sender gives up
            elif path == "/endless":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    writer.write(b"x" * 8192)
                    await writer.drain()
            else:
                writer.write((self._answer(path) + "\r\nContent-Length: 0\r\n\r\n").encode())
                await writer.drain()
        writer.close()

    def _answer(self, path: str) -> str:
        if path in self.answers:
            return self.answers[path]()
        if path == "/redirect":
            return f"HTTP/1.1 302 Found\r\nLocation: {self.url('/204')}"
        return f"HTTP/1.1 {path[1:4]} Answer"


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run a receiver on a free port of 127.0.0.1."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
