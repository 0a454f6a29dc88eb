"""A client that says HTTP/1.0 gets no chunks: what streams to it ends with the connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from jobtape.view.store import Store
from tests.producer.live_api import Live
from tests.producer.raw_http import Answer, answer_of, speak
from tests.producer.running_api import api, listening, without_broker
from tests.view.samples import begin, job_id, record, submitted, succeeded

pytestmark = pytest.mark.anyio

PROTOCOLS = {"httptools": "jobtape.cli.parts.http_protocol:BoundedHttpProtocol", "h11": "h11"}


@pytest.fixture(scope="module", params=list(PROTOCOLS))
async def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """An API with one job that has ended, in each of uvicorn's protocols; that of httptools as `jobtape api` has it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    order = submitted(1)
    record(store, order, succeeded(order))
    async with (
        api(without_broker(url, keepalive_interval=0.2), ready=False) as opened,
        listening(opened.app, lifespan="off", http=PROTOCOLS[request.param]) as port,
    ):
        yield Live(opened, store, f"http://127.0.0.1:{port}")
        opened.producer.listeners.end()
    store.close()


def request(path: str, *headers: str, method: str = "GET", version: str = "1.0") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: api", *headers, "", ""]).encode()


async def asked(live: Live, path: str, *headers: str, **more: str) -> Answer:
    return answer_of(await speak(int(live.url.rpartition(":")[2]), request(path, *headers, **more)))


KEEP_ALIVE = "Connection: keep-alive"
STREAM = "Accept: text/event-stream"


@pytest.mark.parametrize("headers", [(), (KEEP_ALIVE,), ("Connection: close",)], ids=["plain", "keep-alive", "close"])
async def test_a_stream_that_ends(served: Live, headers: tuple[str, ...]) -> None:
    delivered = await asked(served, f"/jobs/{job_id(1)}/events?until=final", STREAM, *headers)
    assert delivered.status == 200
    assert "transfer-encoding" not in delivered.headers
    assert "content-length" not in delivered.headers
    assert delivered.headers["connection"] == "close"
    assert delivered.body.startswith(b"retry: 2000\nevent: hello\nid: ")
    assert delivered.body.count(b"event: ") == 3
    assert delivered.body.endswith(b"\n\n")


async def test_a_stream_without_end(served: Live) -> None:
    port = int(served.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/events?after=first", KEEP_ALIVE))
    async with asyncio.timeout(20):
        delivered = answer_of(await reader.readuntil(b"\r\n\r\n"))
        assert (delivered.status, delivered.headers["connection"]) == (200, "close")
        assert "transfer-encoding" not in delivered.headers
        assert (await reader.readuntil(b"\n\n")).startswith(b"retry: 2000\n")
        for name in (b"submitted", b"succeeded"):
            assert b"\nevent: " + name in await reader.readuntil(b"\n\n")
        assert (await reader.readuntil(b"\n\n")).startswith(b": keep-alive\nid: ")
        writer.close()
    await served.idle()


@pytest.mark.parametrize("path", ["/health/live", "/jobs", "/metrics", "/openapi.json", "/nothing", "/docs"])
async def test_an_answer_of_known_length(served: Live, path: str) -> None:
    delivered = await asked(served, path, KEEP_ALIVE)
    assert int(delivered.headers["content-length"]) == len(delivered.body)
    assert delivered.headers["connection"] == "close"
    assert "transfer-encoding" not in delivered.headers


async def test_head(served: Live) -> None:
    for path in ("/events", "/jobs"):
        delivered = await asked(served, path, method="HEAD")
        assert (delivered.status, delivered.body) == (200, b"")
        assert "transfer-encoding" not in delivered.headers


async def test_http_1_1_has_chunks_as_ever(served: Live) -> None:
    delivered = await asked(served, f"/jobs/{job_id(1)}/events?until=final", STREAM, "Connection: close", version="1.1")
    assert delivered.headers["transfer-encoding"] == "chunked"
    assert delivered.body.endswith(b"\r\n0\r\n\r\n")
