"""Bodies in a real server: the limit holds while they stream in, and the rest is not read."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.consumer.installation import Rig
from tests.producer.raw_http import send_raw
from tests.producer.running_api import Api, problem, serve

pytestmark = pytest.mark.anyio

HEADERS = {"Content-Type": "application/json"}
BODY = b'{"type": "add", "payload": {"x": 1}}'


@pytest.fixture
async def port(served: Api) -> AsyncIterator[int]:
    async with serve(served.app, lifespan="off") as opened:
        yield opened


def request(*headers: str) -> bytes:
    lines = ["POST /jobs HTTP/1.1", "Host: api", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_chunked_body(port: int, rig: Rig) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for n in range(0, len(BODY), 5):
            yield BODY[n : n + 5]

    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://127.0.0.1:{port}/jobs", content=chunks(), headers=HEADERS)
    assert answer.status_code == 202


async def test_endless_chunked_body_is_cut_off(port: int, rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("Transfer-Encoding: chunked"))
    chunk = b"10000\r\n" + b"[" * 0x10000 + b"\r\n"
    sent = 0
    answer = asyncio.create_task(reader.read())
    async with asyncio.timeout(20):
        while not answer.done():
            try:
                writer.write(chunk)
                await writer.drain()
            except ConnectionError:
                break
            sent += len(chunk)
            await asyncio.sleep(0)
        try:
            head = (await answer).split(b"\r\n", 1)[0]
        except ConnectionResetError:  # the reset arrived before the response
            head = b""
    writer.close()
    assert head in (b"HTTP/1.1 413 Content Too Large", b"HTTP/1.1 413 Request Entity Too Large", b"")
    assert sent < 20 * 2**20  # the limit is about 1 MiB, the rest are buffers
    assert await rig.depth() == 0


async def test_announced_size_is_refused_before_body(port: int, rig: Rig) -> None:
    answer = await send_raw(port, request("Content-Length: 99999999999"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in head
    assert b"urn:jobtape:problem:too-large" in body


async def test_disconnect_in_body_submits_nothing(port: int, served: Api, rig: Rig) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(f"Content-Length: {len(BODY) + 10}") + BODY)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/jobs/x")
    problem(answer, 422, "invalid-job-id")
    assert await rig.depth() == 0


async def test_stalled_body_times_out(port: int, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobtape.producer.http.request_body.ARRIVAL_TIMEOUT", 0.2)
    answer = await send_raw(port, request(f"Content-Length: {len(BODY)}") + BODY[:10])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert await rig.depth() == 0
