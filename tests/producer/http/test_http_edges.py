"""Unusual requests: repeated parameters, encodings, conditions, expectations, and long queries."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobtape.view.store import Store
from tests.producer.live_api import LiveApi, live_api
from tests.producer.raw_http import parse_response, request, send_raw
from tests.producer.running_api import problem
from tests.view.samples import begin, job_id, record, submitted

pytestmark = pytest.mark.anyio

ONE = f"/jobs/{job_id(1)}"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveApi]:
    """An API with one job, without a broker."""
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    record(store, submitted(1, labels={"a": "b"}))
    async with live_api(store, url) as opened:
        yield opened
    store.close()


def port_of(live: LiveApi) -> int:
    return int(live.url.rpartition(":")[2])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/jobs?limit=1&limit=2", "limit"),
        ("/jobs?limit=1&state=queued&limit=1", "limit"),
        ("/jobs?since=2030-01-31T12:00:00Z&since=2030-01-31T12:00:00Z", "since"),
        ("/jobs?as_of=1&as_of=2", "as_of"),
        (f"{ONE}?as_of=1&as_of=2", "as_of"),
        (f"{ONE}/events?after=1&after=first", "after"),
        (f"{ONE}/events?limit=1&%6Cimit=2", "limit"),
        (f"/events?job={job_id(1)}&job={job_id(2)}", "job"),
        ("/events?after=first&after=first", "after"),
        ("/dead?before=1&before=2", "before"),
    ],
)
async def test_repeated_single_parameter_is_refused(live: LiveApi, path: str, name: str) -> None:
    details = problem(await live.api.client.get(path), 422, "invalid-query")
    assert [fault["pointer"] for fault in details["errors"]] == [name]


async def test_repeatable_parameters(live: LiveApi) -> None:
    path = "/jobs?state=queued&state=failed&type=add&type=b&label=a:b&label=a:b"
    assert len((await live.api.client.get(path)).json()["items"]) == 1
    head = await live.api.client.head("/events?event=failed&event=succeeded&type=a&type=b&label=a:b&label=c:d")
    assert head.status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/jobs/%30{job_id(1)[1:]}", 200),
        (f"/jobs/{job_id(1).replace('-', '%2D')}", 200),
        (f"/%6Aobs/{job_id(1)}", 200),
        (f"/jobs/{job_id(1)}%20", 422),
        (f"/jobs/%20{job_id(1)}", 422),
        (f"/jobs/{job_id(1)}%2F", 404),
        (f"/jobs/{job_id(1)}?as_of=%78", 422),
        ("/jobs?label=%C3%BC:%C3%BC", 200),
        ("/jobs?label=%ff:x", 200),
        ("/jobs?%6Cimit=1", 200),
        ("/jobs?type=%E2%82%AC", 422),
    ],
)
async def test_percent_encoding(live: LiveApi, path: str, status: int) -> None:
    assert (await request(port_of(live), "GET", path)).status == status


@pytest.mark.parametrize("accept", ["application/xml", "text/html", "image/*;q=0.1", "", ";", "*/*;q=0", "a/b;q=nan"])
async def test_accept_does_not_change_media_type(live: LiveApi, accept: str) -> None:
    for path, media_type in (
        (ONE, "application/json"),
        ("/metrics", "text/plain"),
        ("/jobs/x", "application/problem+json"),
    ):
        answer = await live.api.client.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(media_type)
    assert (await live.api.client.head("/events", headers={"Accept": accept})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([("Content-Type", "application/json; charset=utf-16")], "UTF-8"),
        ([("Content-Type", 'application/json; charset="UTF-16LE"')], "UTF-8"),
        ([("Content-Type", "application/json;charset=iso-8859-1")], "UTF-8"),
        ([("Content-Type", "application/json"), ("Content-Type", "text/plain")], "application/json"),
        ([("Content-Type", "text/plain"), ("Content-Type", "application/json")], "application/json"),
        ([("Content-Type", "application/json"), ("Content-Encoding", "gzip")], "without Content-Encoding"),
        ([("Content-Type", "application/json"), ("Content-Encoding", "identity, br")], "without Content-Encoding"),
        (
            [("Content-Type", "application/json"), ("Content-Encoding", "identity"), ("Content-Encoding", "Zstd")],
            "without Content-Encoding",
        ),
    ],
)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch", "/redrives", "/cancels", "/replays"])
async def test_encoded_body_is_refused(live: LiveApi, path: str, headers: list[tuple[str, str]], why: str) -> None:
    answer = await live.api.client.post(path, content=b"{}", headers=headers)
    assert why in problem(answer, 415, "unsupported-media-type")["detail"]
    assert ("accept-encoding" in answer.headers) == (why == "without Content-Encoding")


@pytest.mark.parametrize(
    "more",
    [
        {"Content-Type": "application/json; charset=UTF-8"},
        {"Content-Type": 'APPLICATION/JSON ; Charset="utf-8" ;'},
        {"Content-Type": "application/json; profile=x"},
        {"Content-Encoding": "identity"},
        {"Content-Encoding": ""},
    ],
)
async def test_accepted_media_types(live: LiveApi, more: dict[str, str]) -> None:
    answer = await live.api.client.post("/jobs", content=b"{", headers=JSON | more)
    problem(answer, 400, "not-json")


async def test_if_none_match_in_several_headers(live: LiveApi) -> None:
    etag = (await live.api.client.get(ONE)).headers["etag"]
    for tags, status in (
        (['"1"', etag], 304),
        ([etag, '"1"'], 304),
        (['"1"', '"2", W/' + etag], 304),
        (['"1"', '"2"'], 200),
        ([""], 200),
        (["", etag], 304),
    ):
        for method in ("GET", "HEAD"):
            headers = [("If-None-Match", tag) for tag in tags]
            answer = await live.api.client.request(method, ONE, headers=headers)
            assert (answer.status_code, answer.headers["etag"]) == (status, etag), tags


def expecting(path: str, length: int, content_type: str = "application/json") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: api", f"Content-Type: {content_type}", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "Expect: 100-continue", "Connection: close", "", ""]).encode()


async def test_expected_body_gets_continue(live: LiveApi) -> None:
    raw = await send_raw(port_of(live), expecting("/jobs", 1), b"{")
    first, _, rest = raw.partition(b"\r\n\r\n")
    assert first == b"HTTP/1.1 100 Continue"
    assert parse_response(rest).status == 400


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (expecting("/jobs", 10**9), 413),
        (expecting("/jobs", 10, "text/plain"), 415),
        (expecting("/jobs?x=1", 10), 422),
        (expecting("/nothing", 10), 404),
        (expecting("/metrics", 10), 405),
    ],
)
async def test_refused_body_gets_no_continue(live: LiveApi, sent: bytes, status: int) -> None:
    assert parse_response(await send_raw(port_of(live), sent)).status == status


@pytest.mark.parametrize(
    "query",
    [
        "x=" + "y" * 50_000,
        "limit=" + "1" * 50_000,
        "y" * 50_000,
        "&".join(["label=a:b"] * 5000),
        "&".join(f"x{n}=1" for n in range(6000)),
        "&" * 50_000 + "x=1",
        "as_of=" + "9" * 50_000,
        "cursor=" + "%00" * 15_000,
    ],
)
async def test_long_query(live: LiveApi, query: str) -> None:
    for path in ("/jobs", "/events"):
        answer = await request(port_of(live), "GET", f"{path}?{query}")
        assert answer.status == 422
        assert len(answer.body) < 20_000


async def test_headers_are_not_repeated(live: LiveApi) -> None:
    sent: dict[str, Any] = {"headers": {"If-None-Match": "*", "Prefer": "wait=0"}}
    for method, path in (("GET", ONE), ("HEAD", ONE), ("OPTIONS", ONE), ("DELETE", ONE), ("GET", "/nothing")):
        answer = await live.api.client.request(method, path, **sent)
        names = [name for name, _ in answer.headers.multi_items()]
        assert len(names) == len(set(names))
