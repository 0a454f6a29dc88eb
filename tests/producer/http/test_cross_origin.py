"""Headers and methods that web pages of other hosts may use (CORS)."""

from collections.abc import AsyncIterator

import httpx
import pytest

from jobtape.view.store import Store
from tests.producer.live_api import LiveApi, live_api
from tests.producer.running_api import problem
from tests.view.samples import begin, job_id, record, submitted

pytestmark = pytest.mark.anyio

PAGE = "https://app.example.org"
KEY = "0123456789"
ONE = f"/jobs/{job_id(1)}"


@pytest.fixture(scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveApi]:
    """An API with a key that pages of ``PAGE`` may use, with one job."""
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    record(store, submitted(1))
    async with live_api(store, url, api_key=KEY, cors_origins=[PAGE]) as live:
        yield live
    store.close()


def names(answer: httpx.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[header].split(",")}


async def preflight(live: LiveApi, path: str, method: str, *headers: str, origin: str = PAGE) -> httpx.Response:
    headers_sent = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        headers_sent["Access-Control-Request-Headers"] = ", ".join(headers)
    return await live.api.client.options(path, headers=headers_sent)


@pytest.mark.parametrize(
    "header",
    [
        *("authorization", "content-type", "idempotency-key", "if-match", "if-none-match", "last-event-id", "prefer"),
        *("traceparent", "tracestate", "baggage", "cache-control", "accept", "TraceParent"),
    ],
)
async def test_page_may_send_header(live: LiveApi, header: str) -> None:
    answer = await preflight(live, "/jobs", "POST", header, "authorization")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert header.lower() in names(answer, "access-control-allow-headers")


@pytest.mark.parametrize(
    ("path", "method"),
    [
        *(("/jobs", "POST"), (ONE, "GET"), (ONE, "HEAD"), ("/events", "GET")),
        *(("/schedules/nightly", "PUT"), ("/schedules/nightly", "DELETE"), ("/webhooks/1", "PATCH")),
    ],
)
async def test_page_may_use_method(live: LiveApi, path: str, method: str) -> None:
    answer = await preflight(live, path, method, "authorization")
    assert answer.status_code == 200
    assert method.lower() in names(answer, "access-control-allow-methods")


async def test_other_origins_are_refused(live: LiveApi) -> None:
    for origin in ("https://other.example.org", "null", f"{PAGE}.evil.example"):
        assert "access-control-allow-origin" not in (await preflight(live, "/jobs", "POST", origin=origin)).headers
    assert (await preflight(live, "/jobs", "POST", "x-other")).status_code == 400
    assert (await preflight(live, "/jobs", "TRACE")).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "headers"),
    [
        ("GET", ONE, 200, ["etag"]),
        ("HEAD", ONE, 200, ["etag"]),
        ("GET", f"{ONE}?as_of={2**48}", 200, ["jobtape-as-of", "etag"]),
        ("GET", f"/jobs?as_of={2**48}", 200, ["jobtape-as-of"]),
        ("GET", "/health/ready", 503, []),
        ("DELETE", "/jobs", 405, ["allow"]),
        ("OPTIONS", "/jobs", 204, ["allow"]),
        ("POST", "/jobs", 415, []),
    ],
)
async def test_page_may_read_headers(live: LiveApi, method: str, path: str, status: int, headers: list[str]) -> None:
    sent = {"Origin": PAGE, "Authorization": f"Bearer {KEY}"}
    answer = await live.api.client.request(method, path, headers=sent)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE)
    exposed = names(answer, "access-control-expose-headers")
    for name in headers:
        assert answer.headers[name]
        assert name in exposed
    # Headers that the Fetch standard always exposes, and those of the connection.
    free = {"cache-control", "content-language", "content-length", "content-type", "vary", "connection"}
    own = {name for name in answer.headers if not name.startswith("access-control-")}
    assert own - free <= exposed, "every header of the response"


async def test_exposed_headers_of_refusal(live: LiveApi) -> None:
    answer = await live.api.client.get("/jobs", headers={"Origin": PAGE})
    problem(answer, 401, "unauthorized")
    assert {
        *("etag", "location", "retry-after", "preference-applied", "jobtape-as-of", "www-authenticate", "allow"),
        *("idempotency-key", "link", "traceparent"),
    } <= names(answer, "access-control-expose-headers")
