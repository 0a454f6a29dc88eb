"""What a client gets for each kind of bad input, and that nothing of it reaches the broker."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobtape.broker.declare import remove_namespace
from jobtape.broker.stream import StreamReader
from jobtape.schemas.topology import BARRIER_KEY, Topology
from tests.consumer.rig import Rig
from tests.producer.serving import QUEUES, Api, api, problem, settings_for

pytestmark = pytest.mark.anyio

MAX_PAYLOAD = 50_000


@pytest.fixture(scope="module")
async def quiet(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API to which nothing good is sent; at the end nothing is on its queues or its tape."""
    topology = Topology(f"test-{uuid4().hex[:10]}").with_queues(QUEUES)
    folder: Path = tmp_path_factory.mktemp("view")
    settings = settings_for(broker_url, topology, f"sqlite:///{folder}/view.db", max_payload=MAX_PAYLOAD, max_batch=5)
    async with Rig(broker_url, topology) as rig:
        async with api(settings) as served:
            yield served
        for queue in QUEUES:
            assert await rig.depth(queue) == 0
        await rig.publisher.publish_barrier("end", 1)
        async with StreamReader(await rig.link.connection(), topology.log.name, "first") as reader:
            assert [message.key for message in await reader.read(10)] == [BARRIER_KEY]
    await remove_namespace(broker_url, topology)


def an_add(**more: Any) -> bytes:
    return json.dumps({"type": "add", "payload": {"x": 1}} | more).encode()


def with_payload(text: str) -> bytes:
    return b'{"type": "keep", "payload": {"data": [%s]}}' % text.encode("utf-8", "surrogatepass")


BODIES: list[tuple[str, bytes, int, str, str | None]] = [
    # what, body, status, kind, pointer of a fault
    ("empty", b"", 400, "not-json", None),
    ("spaces", b"  \n", 400, "not-json", None),
    ("cut off", b'{"type": "add"', 400, "not-json", None),
    ("two values", b"{} {}", 400, "not-json", None),
    ("single quotes", b"{'type': 'add'}", 400, "not-json", None),
    ("not UTF-8", b'{"type": "\xff"}', 400, "not-json", None),
    ("UTF-16", '{"type": "add"}'.encode("utf-16"), 400, "not-json", None),
    ("absurd nesting", b"[" * 20_000 + b"]" * 20_000, 400, "not-json", None),
    ("absurd nesting, cut off", b'{"a":' * 20_000, 400, "not-json", None),
    ("null", b"null", 422, "invalid-submission", ""),
    ("a number", b"1", 422, "invalid-submission", ""),
    ("an array", b"[]", 422, "invalid-submission", ""),
    ("an object that is empty", b"{}", 422, "invalid-submission", "/type"),
    ("no payload", b'{"type": "add"}', 422, "invalid-submission", "/payload"),
    ("payload null", an_add(payload=None), 422, "invalid-submission", "/payload"),
    ("payload an array", an_add(payload=[1]), 422, "invalid-submission", "/payload"),
    ("type a number", an_add(type=1), 422, "invalid-submission", "/type"),
    ("type empty", an_add(type=""), 422, "invalid-submission", "/type"),
    ("type unknown", an_add(type="nope"), 422, "unknown-job-type", "/type"),
    ("type with NUL", an_add(type="a\x00"), 422, "unknown-job-type", "/type"),
    ("type with CR LF", an_add(type="a\r\nb"), 422, "unknown-job-type", "/type"),
    ("type a lone surrogate", an_add(type="\ud800"), 422, "invalid-submission", "/type"),
    ("an unknown field", an_add(priority=9), 422, "invalid-submission", "/priority"),
    ("a field not honoured yet: reply_to", an_add(reply_to="me"), 422, "invalid-submission", "/reply_to"),
    ("an unknown field, a lone surrogate", an_add(**{"\ud800": 1}), 422, "invalid-submission", None),
    ("an unknown field with ~ and /", an_add(**{"a/b~c": 1}), 422, "invalid-submission", "/a~1b~0c"),
    ("queue unknown", an_add(queue="other"), 422, "invalid-submission", "/queue"),
    ("queue with a dot", an_add(queue="a.b"), 422, "invalid-submission", "/queue"),
    ("queue a number", an_add(queue=1), 422, "invalid-submission", "/queue"),
    ("timeout 0", an_add(timeout=0), 422, "invalid-submission", "/timeout"),
    ("timeout negative", an_add(timeout=-1), 422, "invalid-submission", "/timeout"),
    ("timeout too long", an_add(timeout=10_000), 422, "invalid-submission", "/timeout"),
    ("timeout a text", an_add(timeout="30"), 422, "invalid-submission", "/timeout"),
    ("timeout NaN", an_add(timeout=float("nan")), 422, "invalid-submission", "/timeout"),
    ("timeout infinite", an_add(timeout=float("inf")), 422, "invalid-submission", "/timeout"),
    ("timeout enormous", an_add(timeout=10**400), 422, "invalid-submission", "/timeout"),
    ("timeout true", an_add(timeout=True), 422, "invalid-submission", "/timeout"),
    ("labels null", an_add(labels=None), 422, "invalid-submission", "/labels"),
    ("labels a list", an_add(labels=["a"]), 422, "invalid-submission", "/labels"),
    ("label a number", an_add(labels={"a": 1}), 422, "invalid-submission", "/labels/a"),
    ("label with NUL", an_add(labels={"a": "\x00"}), 422, "invalid-submission", "/labels/a"),
    ("label a lone surrogate", an_add(labels={"a": "\ud800"}), 422, "invalid-submission", "/labels/a"),
    ("label too long", an_add(labels={"a": "b" * 257}), 422, "invalid-submission", "/labels/a"),
    ("label name empty", an_add(labels={"": "b"}), 422, "invalid-submission", None),
    ("label name too long", an_add(labels={"a" * 65: "b"}), 422, "invalid-submission", None),
    ("33 labels", an_add(labels={str(n): "" for n in range(33)}), 422, "invalid-submission", "/labels"),
    ("correlation id empty", an_add(correlation_id=""), 422, "invalid-submission", "/correlation_id"),
    ("correlation id too long", an_add(correlation_id="a" * 256), 422, "invalid-submission", "/correlation_id"),
    ("correlation id with NUL", an_add(correlation_id="\x00"), 422, "invalid-submission", "/correlation_id"),
    ("payload: a field missing", an_add(payload={}), 422, "invalid-payload", "/payload/x"),
    ("payload: a field too many", an_add(payload={"x": 1, "z": 1}), 422, "invalid-payload", "/payload/z"),
    ("payload: of another type", an_add(payload={"x": "one"}), 422, "invalid-payload", "/payload/x"),
    (
        "payload: deep in a model",
        an_add(type="order.place", payload={"article": "pen", "pieces": [1, "two"]}),
        422,
        "invalid-payload",
        "/payload/pieces/1",
    ),
    ("payload: NaN", with_payload("NaN"), 422, "invalid-payload", "/payload"),
    ("payload: -Infinity", with_payload("-Infinity"), 422, "invalid-payload", "/payload"),
    ("payload: 1e999", with_payload("1e999"), 422, "invalid-payload", "/payload"),
    ("payload: 2^63", with_payload(str(2**63)), 422, "invalid-payload", "/payload"),
    ("payload: 1000 digits", with_payload("9" * 1000), 422, "invalid-payload", "/payload"),
    ("payload: 10,000 digits", with_payload("9" * 10_000), 400, "not-json", None),
    ("payload: NUL", with_payload('"\\u0000"'), 422, "invalid-payload", "/payload"),
    ("payload: NUL in a key", with_payload('{"a\\u0000": 1}'), 422, "invalid-payload", "/payload"),
    ("payload: a lone surrogate", with_payload('"\\ud800"'), 422, "invalid-payload", "/payload"),
    ("payload: a lone surrogate in a key", with_payload('{"\\udfff": 1}'), 422, "invalid-payload", "/payload"),
    ("payload: 100 levels", with_payload("[" * 100 + "]" * 100), 422, "invalid-payload", "/payload"),
    (
        "payload: one byte too many",
        with_payload('"' + "a" * (MAX_PAYLOAD - 12) + '"'),
        413,
        "payload-too-large",
        "/payload",
    ),
    ("the body too large", with_payload('"' + "a" * 300_000 + '"'), 413, "too-large", None),
]


@pytest.mark.parametrize(("body", "status", "kind", "pointer"), [row[1:] for row in BODIES], ids=[r[0] for r in BODIES])
async def test_body(quiet: Api, body: bytes, status: int, kind: str, pointer: str | None) -> None:
    answer = await quiet.client.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    details = problem(answer, status, kind)
    assert "Traceback" not in answer.text
    if pointer is not None:
        assert pointer in [fault["pointer"] for fault in details["errors"]], details
    if kind == "unknown-job-type":
        assert "add, keep, order.place" in details["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/xml"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/x-ndjson"}, 415),
        ({"Content-Type": "application/cloudevents+json"}, 415),
        ({"Content-Type": "application/jsonx"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
    ],
)
async def test_content_type(quiet: Api, headers: dict[str, str], status: int) -> None:
    answer = await quiet.client.post("/jobs", content=an_add(), headers=headers)
    problem(answer, status, "unsupported-media-type")


BATCHES: list[tuple[str, bytes, str, int, str]] = [
    ("empty", b"", "application/json", 400, "not-json"),
    ("an object", an_add(), "application/json", 422, "invalid-batch"),
    ("an empty array", b"[]", "application/json", 422, "invalid-batch"),
    ("too many", b"[" + b",".join([b"1"] * 6) + b"]", "application/json", 422, "invalid-batch"),
    ("lines as JSON", an_add() + b"\n" + an_add(), "application/json", 400, "not-json"),
    ("no line", b"\n\n", "application/x-ndjson", 422, "invalid-batch"),
    ("too many lines", b"1\n" * 6, "application/x-ndjson", 422, "invalid-batch"),
    ("of another type", b"[]", "text/csv", 415, "unsupported-media-type"),
    ("absurd nesting", b"[" * 20_000, "application/json", 400, "not-json"),
]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "kind"), [row[1:] for row in BATCHES], ids=[row[0] for row in BATCHES]
)
async def test_batch(quiet: Api, body: bytes, content_type: str, status: int, kind: str) -> None:
    answer = await quiet.client.post("/jobs/batch", content=body, headers={"Content-Type": content_type})
    problem(answer, status, kind)


async def test_bad_items_of_a_batch(quiet: Api) -> None:
    body = b"\n".join([b"{", an_add(type="nope"), an_add(payload={}), b"7"])
    answer = await quiet.client.post("/jobs/batch", content=body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200
    told = answer.json()
    assert (told["accepted"], told["refused"], told["unknown"]) == (0, 4, 0)
    kinds = [item["problem"]["type"].rpartition(":")[2] for item in told["items"]]
    assert kinds == ["not-json", "unknown-job-type", "invalid-payload", "invalid-submission"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=1e2", "limit"),
        ("limit=", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("cursor=x", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=17", "cursor"),
        ("state=done", "state.0"),
        ("state=queued&state=", "state.1"),
        ("type=", "type.0"),
        ("type=a%00", "type.0"),
        ("type=a%20b", "type.0"),
        ("queue=a.b", "queue.0"),
        ("label=a", "label.0"),
        ("label=:b", "label.0"),
        ("label=a:%00", "label.0"),
        ("since=yesterday", "since"),
        ("since=1700000000", "since"),
        ("since=2030-01-01", "since"),
        ("since=2030-01-01T00:00:00", "since"),
        ("since=2030-13-01T00:00:00Z", "since"),
        ("until=2030-01-01T00:00:00+00:00", "until"),  # the + arrives as a space
        ("since=0001-01-01T00:00:00%2B23:59", "since"),
        ("sort=id", "sort"),
        ("delay=1", "delay"),
        ("Type=add", "Type"),
    ],
)
async def test_list_query(quiet: Api, query: str, parameter: str) -> None:
    details = problem(await quiet.client.get(f"/jobs?{query}"), 422, "invalid-query")
    assert parameter in [fault["pointer"] for fault in details["errors"]]


SOME_ID = "01a20133-210c-72fa-b9c6-a0de53b5235f"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/jobs/x", 422, "invalid-job-id"),
        ("GET", "/jobs/1", 422, "invalid-job-id"),
        ("GET", "/jobs/%00", 422, "invalid-job-id"),
        ("GET", "/jobs/%ff", 422, "invalid-job-id"),
        ("GET", f"/jobs/{SOME_ID}x", 422, "invalid-job-id"),
        ("GET", f"/jobs/{SOME_ID}%0a", 422, "invalid-job-id"),
        ("GET", f"/jobs/{{{SOME_ID}}}", 422, "invalid-job-id"),
        ("GET", "/jobs/x/events", 422, "invalid-job-id"),
        ("GET", f"/jobs/{SOME_ID}/events?after=-1", 422, "invalid-query"),
        ("GET", f"/jobs/{SOME_ID}/events?after={2**63}", 422, "invalid-query"),
        ("GET", f"/jobs/{SOME_ID}/events?after=x", 422, "invalid-query"),
        ("GET", f"/jobs/{SOME_ID}/events?limit=0", 422, "invalid-query"),
        ("GET", f"/jobs/{SOME_ID}/events?cursor=0", 422, "invalid-query"),
        ("GET", f"/jobs/{SOME_ID}?wait=5", 422, "invalid-query"),
        ("POST", "/jobs?delay=5", 422, "invalid-query"),
        ("POST", "/jobs/batch?x", 422, "invalid-query"),
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/nothing%0d%0aSet-Cookie:a=b", 404, "not-found"),
        ("POST", "/jobs/", 404, "not-found"),
        ("POST", f"/jobs/{SOME_ID}/cancel", 404, "not-found"),
        ("DELETE", "/jobs", 405, "method-not-allowed"),
        ("PUT", f"/jobs/{SOME_ID}", 405, "method-not-allowed"),
        ("PATCH", "/metrics", 405, "method-not-allowed"),
    ],
)
async def test_path(quiet: Api, method: str, path: str, status: int, kind: str) -> None:
    answer = await quiet.client.request(method, path)
    problem(answer, status, kind)
    if status == 405:
        assert answer.headers["allow"]
