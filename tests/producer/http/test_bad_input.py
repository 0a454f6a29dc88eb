"""The problem for each kind of bad input. None of it reaches the broker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobtape.broker.declare import remove_namespace
from jobtape.broker.stream_reader import StreamReader
from jobtape.schemas.topology import BARRIER_KEY
from tests.consumer.installation import Rig
from tests.namespaces import some_topology
from tests.producer.bad_bodies import BATCHES, BODIES, MAX_PAYLOAD, an_add
from tests.producer.running_api import QUEUES, Api, api, problem, settings_for

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def quiet(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API that gets only bad input. At the end its queues and its tape must be empty."""
    topology = some_topology(*QUEUES)
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


@pytest.mark.parametrize(("body", "status", "kind", "pointer"), [row[1:] for row in BODIES], ids=[r[0] for r in BODIES])
async def test_bad_body(quiet: Api, body: bytes, status: int, kind: str, pointer: str | None) -> None:
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
async def test_bad_content_type(quiet: Api, headers: dict[str, str], status: int) -> None:
    answer = await quiet.client.post("/jobs", content=an_add(), headers=headers)
    problem(answer, status, "unsupported-media-type")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "kind"), [row[1:] for row in BATCHES], ids=[row[0] for row in BATCHES]
)
async def test_bad_batch(quiet: Api, body: bytes, content_type: str, status: int, kind: str) -> None:
    answer = await quiet.client.post("/jobs/batch", content=body, headers={"Content-Type": content_type})
    problem(answer, status, kind)


async def test_bad_items_of_batch(quiet: Api) -> None:
    lines = b"\n".join([b"{", an_add(type="nope"), an_add(payload={}), b"7"])
    answer = await quiet.client.post("/jobs/batch", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["accepted"], body["refused"], body["unknown"]) == (0, 4, 0)
    kinds = [item["problem"]["type"].rpartition(":")[2] for item in body["items"]]
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
async def test_bad_list_query(quiet: Api, query: str, parameter: str) -> None:
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
        ("DELETE", "/jobs", 405, "method-not-allowed"),
        ("PUT", f"/jobs/{SOME_ID}", 405, "method-not-allowed"),
        ("PATCH", "/metrics", 405, "method-not-allowed"),
    ],
)
async def test_bad_path(quiet: Api, method: str, path: str, status: int, kind: str) -> None:
    answer = await quiet.client.request(method, path)
    problem(answer, status, kind)
    if status == 405:
        assert answer.headers["allow"]
