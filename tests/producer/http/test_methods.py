"""HEAD wherever there is a GET, OPTIONS everywhere, and an ``Allow`` with all methods of a path."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from jobtape.view.store import Store
from tests.producer.live_api import LiveApi, live_api
from tests.producer.raw_http import request
from tests.producer.running_api import problem
from tests.producer.sse_client import open_stream
from tests.view.samples import begin, job_id, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

ONE = f"/jobs/{job_id(1)}"
KEY = "0123456789"
BEARER = f"Authorization: Bearer {KEY}"
STREAM = "Accept: text/event-stream"


@pytest.fixture(scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveApi]:
    """An API with one job that has ended, and one listener at most."""
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    order = submitted(1)
    record(store, order, succeeded(order))
    async with live_api(store, url, keepalive_interval=0.2, max_listeners=1, api_key=KEY) as opened:
        yield opened
    store.close()


def port_of(live: LiveApi) -> int:
    return int(live.url.rpartition(":")[2])


async def test_head_works_wherever_get_does(live: LiveApi) -> None:
    document = (await live.api.client.get("/openapi.json")).json()
    paths = [path for path, item in document["paths"].items() if "get" in item]
    assert {"/jobs", "/jobs/{job_id}", "/dead", "/metrics", "/health/live", "/job-types"} <= set(paths)
    paths += ["/docs", "/openapi.json", "/asyncapi.json", "/jobs?limit=0", "/jobs?limit=1", "/jobs/x", "/nothing"]
    for path in paths:
        if path == "/events":
            continue
        target = path.format(job_id=job_id(1), number=1, name="nightly", webhook_id=job_id(1))
        got = await request(port_of(live), "GET", target, BEARER)
        head = await request(port_of(live), "HEAD", target, BEARER)
        assert head.body == b"", path
        assert (head.status, list(head.headers)) == (got.status, list(got.headers)), path
        if path not in ("/metrics", "/health/ready"):  # which change between requests
            assert head.headers["content-length"] == got.headers["content-length"], path
            assert head.headers["content-type"] == got.headers["content-type"], path
        assert int(head.headers["content-length"]) > 0, path


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (ONE, [], 200),
        (ONE, ["If-None-Match: *"], 304),
        (ONE, ['If-None-Match: "1"', "Prefer: wait=0"], 200),
        (ONE, ["Prefer: wait=5"], 200),
        (f"{ONE}?as_of=first", [], 422),
        ("/jobs/x", [], 422),
        ("/dead/1", [], 404),
        ("/health/ready", [], 503),
    ],
)
async def test_head_has_headers_of_get(live: LiveApi, path: str, headers: list[str], status: int) -> None:
    got = await request(port_of(live), "GET", path, BEARER, *headers)
    head = await request(port_of(live), "HEAD", path, BEARER, *headers)
    assert (head.status, head.body) == (status, b"")
    assert list(head.headers) == list(got.headers)
    for name in ("etag", "preference-applied", "retry-after"):
        assert head.headers.get(name) == got.headers.get(name)
    if path == ONE:
        assert head.headers["etag"]


async def test_head_needs_key(live: LiveApi) -> None:
    for path in ("/jobs", ONE, "/events", "/metrics"):
        head = await request(port_of(live), "HEAD", path)
        assert (head.status, head.body) == (401, b"")
        assert head.headers["www-authenticate"].startswith("Bearer")
    for path in ("/health/live", "/openapi.json", "/docs"):
        assert (await request(port_of(live), "HEAD", path)).status == 200


async def test_head_waits_like_get(live: LiveApi) -> None:
    await live.wait_idle()
    order = submitted(2)
    record(live.store, order)
    waiting = asyncio.create_task(request(port_of(live), "HEAD", f"/jobs/{job_id(2)}", BEARER, "Prefer: wait=30"))
    await eventually(lambda: live.listeners == 1)
    record(live.store, succeeded(order))
    head = await waiting
    got = await request(port_of(live), "GET", f"/jobs/{job_id(2)}", BEARER)
    assert (head.status, head.body, head.headers["preference-applied"]) == (200, b"", "wait=30")
    for name in ("etag", "content-length"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(("path", "headers"), [("/events", []), (f"{ONE}/events", [STREAM])])
async def test_head_of_stream_opens_no_stream(
    live: LiveApi, path: str, headers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.wait_idle()
    with monkeypatch.context() as patched:
        patched.setattr(live.api.producer.listeners, "admit", None)
        head = await request(port_of(live), "HEAD", path, BEARER, *headers)
    assert (head.status, head.body) == (200, b""), "it does not count as a listener"
    async with open_stream(f"{live.url}{path}", Authorization=f"Bearer {KEY}") as received:
        for name in ("content-type", "cache-control", "x-accel-buffering"):
            assert head.headers[name] == received.answer.headers[name]
        await received.next(control=True)
        full = await request(port_of(live), "HEAD", path, BEARER, *headers)
        assert full.status == 503, "as for a GET"
        assert full.headers["retry-after"]
    await live.wait_idle()


async def test_head_of_stream_checks_parameters(live: LiveApi) -> None:
    for path, status in (("/events?after=x", 422), ("/events?nonsense=1", 422), ("/jobs/x/events", 422)):
        assert (await request(port_of(live), "HEAD", path, BEARER, STREAM)).status == status
    bad = await request(port_of(live), "HEAD", "/events", BEARER, "Last-Event-ID: x")
    assert (bad.status, bad.body) == (400, b"")


ALLOWED = [
    ("/jobs", "GET, HEAD, OPTIONS, POST"),
    (ONE, "GET, HEAD, OPTIONS"),
    (f"{ONE}/events", "GET, HEAD, OPTIONS"),
    ("/events", "GET, HEAD, OPTIONS"),
    ("/dead", "GET, HEAD, OPTIONS"),
    ("/dead/1", "GET, HEAD, OPTIONS"),
    ("/metrics", "GET, HEAD, OPTIONS"),
    ("/health/live", "GET, HEAD, OPTIONS"),
    ("/docs", "GET, HEAD, OPTIONS"),
    ("/openapi.json", "GET, HEAD, OPTIONS"),
    ("/asyncapi.json", "GET, HEAD, OPTIONS"),
    # GET is the path of one job
    ("/jobs/batch", "GET, HEAD, OPTIONS, POST"),
    (f"{ONE}/cancel", "OPTIONS, POST"),
    (f"{ONE}/redrive", "OPTIONS, POST"),
    (f"{ONE}/fork", "OPTIONS, POST"),
    ("/redrives", "OPTIONS, POST"),
    (f"/redrives/{ONE.rpartition('/')[2]}", "GET, HEAD, OPTIONS"),
    ("/cancels", "OPTIONS, POST"),
    ("/workers", "GET, HEAD, OPTIONS"),
    ("/subscriptions", "GET, HEAD, OPTIONS"),
    ("/replays", "OPTIONS, POST"),
]


@pytest.mark.parametrize(("path", "allow"), ALLOWED)
async def test_method_not_allowed_lists_allowed_methods(live: LiveApi, path: str, allow: str) -> None:
    methods = ["DELETE", "PUT", "PATCH", "TRACE"]
    methods += [method for method in ("GET", "HEAD", "POST") if method not in allow.split(", ")]
    for method in methods:
        answer = await live.api.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow), method
        if method != "HEAD":
            details = problem(answer, 405, "method-not-allowed")
            assert allow in details["detail"]
        else:
            assert answer.content == b""


@pytest.mark.parametrize(("path", "allow"), ALLOWED)
async def test_options_lists_allowed_methods(live: LiveApi, path: str, allow: str) -> None:
    answer = await request(port_of(live), "OPTIONS", path)
    assert (answer.status, answer.headers["allow"], answer.body) == (204, allow, b"")


async def test_options_of_unknown_path_and_server(live: LiveApi) -> None:
    problem(await live.api.client.options("/nothing"), 404, "not-found")
    whole = await request(port_of(live), "OPTIONS", "*")
    assert (whole.status, whole.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


async def test_trailing_slash_is_not_found(live: LiveApi) -> None:
    client = live.api.client
    for method, path in (("GET", "/jobs/"), ("POST", "/jobs/"), ("HEAD", f"{ONE}/"), ("GET", "/events/")):
        answer = await client.request(method, path)
        assert answer.status_code == 404
        if method != "HEAD":
            assert "slash" in problem(answer, 404, "not-found")["detail"]
    assert "slash" not in problem(await client.get("/nothing/"), 404, "not-found")["detail"]


async def test_methods_under_prefix(live: LiveApi) -> None:
    outer = FastAPI()
    outer.mount("/jobtape", live.api.app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://api") as client:
        assert (await client.head("/jobtape/health/live")).status_code == 200
        assert (await client.delete("/jobtape/jobs")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert (await client.options("/jobtape/jobs")).status_code == 204


async def test_head_is_not_in_document(live: LiveApi) -> None:
    document = (await live.api.client.get("/openapi.json")).json()
    methods = {method for item in document["paths"].values() for method in item}
    assert methods == {"get", "post", "put", "patch", "delete"}
