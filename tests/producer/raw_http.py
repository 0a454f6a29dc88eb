"""A client that sends bytes as they are and shows what comes back, byte by byte."""

import asyncio
from dataclasses import dataclass

PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    """``headers`` by their names in lower case, ``body`` as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


async def speak(port: int, *parts: bytes, wait: float = PATIENCE) -> bytes:
    """Send the parts and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(wait):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
    finally:
        writer.close()


async def ask(port: int, method: str, path: str, *headers: str) -> Answer:
    """One request on a connection of its own, which the server closes behind the answer."""
    lines = [f"{method} {path} HTTP/1.1", "Host: api", "Connection: close", *headers, "", ""]
    return answer_of(await speak(port, "\r\n".join(lines).encode("latin-1")))


def answer_of(said: bytes) -> Answer:
    """The answer that these bytes are, all of what stands behind its headers as the body."""
    head, _, body = said.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Answer(int(status.split()[1]), headers, body)
