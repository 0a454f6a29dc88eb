"""The server of `jobtape api` refuses a request whose headers never end, before the key is checked."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from jobtape.app import create_app
from jobtape.cli.parts.http_protocol import MAX_UNFINISHED
from tests.producer.jobs import add
from tests.producer.running_api import serve, without_broker

pytestmark = pytest.mark.anyio

KIB = 1024
ENOUGH = 16 * 1024 * KIB
"""Bytes; kernels have buffers too."""
BEGIN = b"GET /jobs HTTP/1.1\r\nHost: api\r\n"
CHUNKED = b"POST /jobs HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def port(sqlite_url: str) -> AsyncIterator[int]:
    app = create_app(without_broker(sqlite_url), [add])
    async with serve(app, http="jobtape.cli.parts.http_protocol:BoundedHttpProtocol") as opened:
        yield opened


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (BEGIN, b"x-a: " + b"y" * 4 * KIB + b"\r\n"),
        (BEGIN + b"x-a: ", b"y" * 4 * KIB),
        (b"GET /", b"y" * 4 * KIB),
        (CHUNKED + b"2;", b"y" * 4 * KIB),
        (CHUNKED + b"0\r\n", b"x-a: " + b"y" * 4 * KIB + b"\r\n"),
    ],
    ids=["headers", "header", "url", "chunk extension", "trailers"],
)
async def test_endless_request_is_refused(port: int, begin: bytes, more: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    sent = 0
    with pytest.raises(OSError):
        async with asyncio.timeout(20):
            while sent < ENOUGH:
                writer.write(more)
                await writer.drain()
                sent += len(more)
    assert sent < ENOUGH
    writer.close()


async def test_refusal_states_reason(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(BEGIN + b"x-a: " + b"y" * (MAX_UNFINISHED - 10 * KIB))
    await writer.drain()
    for _ in range(3):
        writer.write(b"y" * 8 * KIB)
        await writer.drain()
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"smaller ones\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    writer.close()


async def test_large_complete_request_is_accepted(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        answer = await client.get("/health/live", headers={"x-a": "y" * (MAX_UNFINISHED - KIB)})
        assert answer.status_code == 200
        for _ in range(3):
            answer = await client.post("/jobs", json={"type": "add", "payload": {"x": "y" * 512 * KIB}})
            assert answer.status_code in (422, 503), "the body was read"
