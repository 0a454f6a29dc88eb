"""A client of HTTP/1.0 gets no chunks: a stream ends with the connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from jobtape.view.store import Store
from tests.producer.live_api import LiveApi
from tests.producer.raw_http import RawResponse, parse_response, send_raw
from tests.producer.running_api import api, serve, without_broker
from tests.view.samples import begin, job_id, record, submitted, succeeded

pytestmark = pytest.mark.anyio

PROTOCOLS = {"httptools": "jobtape.cli.parts.http_protocol:BoundedHttpProtocol", "h11": "h11"}


@pytest.fixture(scope="module", params=list(PROTOCOLS))
async def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveApi]:
    """An API with one job that has ended, in each of uvicorn's protocols; that of httptools as `jobtape api` has it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    order = submitted(1)
    record(store, order, succeeded(order))
    async with (
        api(without_broker(url, keepalive_interval=0.2), ready=False) as opened,
        serve(opened.app, lifespan="off", http=PROTOCOLS[request.param]) as port,
    ):
        yield LiveApi(opened, store, f"http://127.0.0.1:{port}")
        opened.producer.listeners.end()
    store.close()


def request(path: str, *headers: str, method: str = "GET", version: str = "1.0") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: api", *headers, "", ""]).encode()


async def get(live: LiveApi, path: str, *headers: str, **more: str) -> RawResponse:
    return parse_response(await send_raw(int(live.url.rpartition(":")[2]), request(path, *headers, **more)))


KEEP_ALIVE = "Connection: keep-alive"
STREAM = "Accept: text/event-stream"


@pytest.mark.parametrize("headers", [(), (KEEP_ALIVE,), ("Connection: close",)], ids=["plain", "keep-alive", "close"])
async def test_ending_stream_closes_connection(served: LiveApi, headers: tuple[str, ...]) -> None:
    answer = await get(served, f"/jobs/{job_id(1)}/events?until=final", STREAM, *headers)
    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers
    assert "content-length" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert answer.body.startswith(b"retry: 2000\nevent: hello\nid: ")
    assert answer.body.count(b"event: ") == 3
    assert answer.body.endswith(b"\n\n")


async def test_endless_stream_closes_connection(served: LiveApi) -> None:
    port = int(served.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/events?after=first", KEEP_ALIVE))
    async with asyncio.timeout(20):
        answer = parse_response(await reader.readuntil(b"\r\n\r\n"))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert "transfer-encoding" not in answer.headers
        assert (await reader.readuntil(b"\n\n")).startswith(b"retry: 2000\n")
        for name in (b"submitted", b"succeeded"):
            assert b"\nevent: " + name in await reader.readuntil(b"\n\n")
        assert (await reader.readuntil(b"\n\n")).startswith(b": keep-alive\nid: ")
        writer.close()
    await served.wait_idle()


@pytest.mark.parametrize("path", ["/health/live", "/jobs", "/metrics", "/openapi.json", "/nothing", "/docs"])
async def test_response_has_content_length(served: LiveApi, path: str) -> None:
    answer = await get(served, path, KEEP_ALIVE)
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["connection"] == "close"
    assert "transfer-encoding" not in answer.headers


async def test_head_has_no_body(served: LiveApi) -> None:
    for path in ("/events", "/jobs"):
        answer = await get(served, path, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert "transfer-encoding" not in answer.headers


async def test_http_1_1_stream_is_chunked(served: LiveApi) -> None:
    answer = await get(served, f"/jobs/{job_id(1)}/events?until=final", STREAM, "Connection: close", version="1.1")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body.endswith(b"\r\n0\r\n\r\n")
