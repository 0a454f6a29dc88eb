"""A minimal HTTP client, so that a measurement measures the server and not the client."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """An answer; names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's JSON value."""
        return json.loads(self.body)


class Wire:
    """One kept connection for one request at a time. Use it with ``async with``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> "Wire":
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=2**24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request, and return the answer."""
        sent = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            headers["Content-Type"] = "application/json"
        await self._send(method, path, sent, headers)
        status, head = await self._head()
        length = int(head.get("content-length", "0"))
        return Answer(status, head, await self._reader.readexactly(length))

    async def stream(
        self, path: str, opened: asyncio.Event | None = None, **headers: str
    ) -> AsyncIterator[tuple[str, str, str]]:
        """Yield (event, id, data) of each server-sent event of a stream. ``opened`` is set when the stream begins."""
        await self._send("GET", path, b"", {"Accept": "text/event-stream", **headers})
        status, _ = await self._head()
        if status != 200:
            raise RuntimeError(f"{path}: {status}")
        if opened is not None:
            opened.set()
        fields: dict[str, str] = {}
        async for line in self._chunks():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            else:
                yield fields.get("event", ""), fields.get("id", ""), fields.get("data", "")
                fields = {}

    async def _chunks(self) -> AsyncIterator[str]:
        rest = b""
        while size := int(await self._reader.readline(), 16):
            rest += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield line.decode()

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self._writer.drain()

    async def _head(self) -> tuple[int, dict[str, str]]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in head[1:] if line)
        return int(head[0].split(" ")[1]), {name.lower(): value for name, _, value in pairs}
