"""API keys of the database: which requests each kind of key may send, and what a key sees that is limited to types."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobtape.producer.http.access import RULES, Limited
from jobtape.schemas.access import Scope
from jobtape.schemas.events import Continued, ContinuedData
from jobtape.view.store import Store
from tests.producer.live_api import LiveApi, live_api
from tests.producer.running_api import problem
from tests.producer.sse_client import open_stream
from tests.producer.websocket_client import open_websocket
from tests.view.samples import SOURCE, begin, job_id, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

FIRST = "sesame-oeffne-dich"
SECRET = "zanzibar"
"""Stands in everything that is about the other job type."""
OWN, OTHER = job_id(1), job_id(2)


@dataclass
class Locked:
    """An API that needs a key, with a job of the type ``add`` and one of another type."""

    live: LiveApi

    async def send(self, method: str, path: str, key: str | None, **options: Any) -> Any:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return await self.live.api.client.request(method, path, headers=headers, **options)

    async def create(self, *scopes: str, **more: Any) -> dict[str, Any]:
        body = {"name": "test", "scopes": scopes or [*Scope], **more}
        answer = await self.send("POST", "/keys", FIRST, json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def key(self, *scopes: str, **more: Any) -> str:
        made = await self.create(*scopes, **more)
        return str(made["key"])


@pytest.fixture(scope="module")
async def locked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Locked]:
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    begin(store)
    own, other = (
        submitted(1, type="add", labels={"seen": "yes"}),
        submitted(2, type=f"{SECRET}.type", payload={"x": SECRET}, queue=SECRET, labels={"seen": SECRET}),
    )
    record(store, own, other, succeeded(own, 1), succeeded(other, SECRET))
    async with live_api(store, url, api_key=FIRST, keepalive_interval=0.2) as opened:
        yield Locked(opened)
    store.close()


def example(path: str) -> str:
    """Return the path with a value for each parameter."""
    values = {"job_id": OWN, "webhook_id": OWN, "key_id": OWN, "number": "1"}
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "add"), path)


async def test_every_endpoint_refuses_every_unfit_key(locked: Locked) -> None:
    document = locked.live.api.app.openapi()
    endpoints = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert endpoints - {"GET /health/live", "GET /health/ready"} == set(RULES)
    expired = await locked.create(expires_in=0.001)
    revoked = await locked.create()
    await locked.send("DELETE", f"/keys/{revoked['id']}", FIRST)
    other_scopes = {scope: await locked.key(*(set(Scope) - {scope})) for scope in Scope}
    limited = await locked.key(types=["add"])
    unfit: list[tuple[str | None, int, Callable[[str], bool]]] = [
        (None, 401, lambda _: True),
        ("wrong", 401, lambda _: True),
        ("jobtape_wrong", 401, lambda _: True),
        (expired["key"], 401, lambda _: True),
        (revoked["key"], 401, lambda _: True),
        *((key, 403, lambda name, scope=scope: RULES[name].scope is scope) for scope, key in other_scopes.items()),
        (limited, 403, lambda name: RULES[name].limited is Limited.REFUSED),
    ]
    for name in sorted(RULES):
        method, path = name.split(" ")
        for key, status, applies in unfit:
            if applies(name):
                answer = await locked.send(method, example(path), key)
                assert answer.status_code == status, (name, key, answer.text)
                problem(answer, status, {401: "unauthorized", 403: "forbidden"}[status])
                documented = document["paths"][path][method.lower()]["responses"]
                assert str(status) in documented, name


async def test_limited_key_gets_404_for_jobs_of_other_types(locked: Locked) -> None:
    key = await locked.key(types=["add"])
    its_job = [name for name, rule in RULES.items() if rule.limited is Limited.ITS_JOB]
    assert len(its_job) > 8
    for name in its_job:
        method, path = name.split(" ")
        answer = await locked.send(method, example(path).replace(OWN, OTHER), key)
        problem(answer, 404, "job-not-found")
    assert (await locked.send("GET", f"/jobs/{OWN}", key)).json()["type"] == "add"
    assert (await locked.send("GET", f"/jobs/{OTHER}", FIRST)).json()["result"] == SECRET


@pytest.mark.parametrize(
    "path",
    [
        "/jobs",
        "/jobs?as_of=281474976710659",
        "/jobs?queue=zanzibar",
        "/jobs?label=seen:zanzibar",
        "/jobs?payload.x=zanzibar",
        f"/jobs/{OWN}",
        f"/jobs/{OWN}/events",
        "/events/positions",
        "/events/histogram",
        "/stats",
        "/stats?queue=zanzibar",
        "/failures",
        "/job-types",
        "/workers",
        "/schedules?committed=true",
        "/webhooks",
        "/openapi.json",
        "/asyncapi.json",
        "/jobs?type=zanzibar.type",
        "/stats?type=zanzibar.type",
        "/events?type=zanzibar.*",
        "/metrics",
        "/dead",
        "/subscriptions",
        "/limits?committed=true",
    ],
)
async def test_nothing_of_other_types_is_in_an_answer(locked: Locked, path: str) -> None:
    key = await locked.key("read", types=["add"])
    answer = await locked.send("GET", path, key)
    assert answer.status_code in (200, 403), answer.text
    # What the client itself has sent may come back.
    named = SECRET in path
    assert named or SECRET not in answer.text
    assert OTHER not in answer.text
    if path.startswith("/jobs?") and answer.status_code == 200:
        assert [job["id"] for job in answer.json()["items"]] == ([] if named else [OWN])


async def test_limited_key_creates_webhooks_and_bulk_actions_for_its_types_only(locked: Locked) -> None:
    key = await locked.key("manage", "read", types=["add"])
    for body in ({"dry_run": True, "state": ["succeeded"]}, {"dry_run": True, "ids": [OWN, OTHER]}):
        preview = await locked.send("POST", "/redrives", key, json=body)
        assert preview.status_code in (200, 503)  # without a broker the view may lack something
        assert OTHER not in preview.text
    refused: list[tuple[str, dict[str, Any]]] = [
        ("/redrives", {"type": [f"{SECRET}.type"]}),
        ("/cancels", {"type": ["add", f"{SECRET}.type"]}),
        ("/replays", {"queue": "mine", "types": [f"{SECRET}.*"]}),
        ("/webhooks", {"url": "https://example.org/", "filter": {"types": [f"{SECRET}.*"]}}),
    ]
    for path, body in refused:
        assert (await locked.send("POST", path, key, json=body)).status_code == 403, path
    for type_path in (f"/job-types/{SECRET}.type/pause", f"/job-types/{SECRET}.type/resume"):
        problem(await locked.send("POST", type_path, key), 403, "forbidden")


async def test_results_of_follow_ups_of_other_types_are_refused(locked: Locked) -> None:
    nodes = {name: {"type": name, "payload": {}, "queue": "main", "timeout": 30.0} for name in ("add", SECRET)}
    flow = {"nodes": {name: {"order": order} for name, order in nodes.items()}}
    of = submitted(3, type="add")
    data = ContinuedData(
        job_type="add", run=1, attempt=1, execution="e1", worker="w", started_at=of.time, duration=1.0, follow_ups=flow
    )
    record(
        locked.live.store,
        of,
        Continued(id=f"{of.subject}/1/1/continued/e1", source=SOURCE, subject=of.subject, time=of.time, data=data),
    )
    limited = await locked.key(types=["add"])
    path = f"/jobs/{of.subject}/results?nodes="
    assert (await locked.send("GET", path + "add", limited)).json()["items"][0]["state"] is None
    refused = problem(await locked.send("GET", path + f"add,{SECRET}", limited), 403, "forbidden")
    assert SECRET in refused["detail"]


async def test_submissions_of_other_types_are_refused(locked: Locked) -> None:
    key = await locked.key("submit", types=["add"])
    other = {"type": f"{SECRET}.type", "payload": {}}
    for path, body in (("/jobs", other), ("/flows", {"nodes": {"a": other}})):
        problem(await locked.send("POST", path, key, json=body), 403, "forbidden")
    everything = await locked.key("submit")
    problem(
        await locked.send("POST", "/jobs", everything, json={"type": "jobtape.cancel", "payload": {}}),
        403,
        "forbidden",
    )


async def test_stream_shows_own_types_and_ends_with_its_key(locked: Locked) -> None:
    made = await locked.create("read", types=["add"])
    async with open_stream(f"{locked.live.url}/events?after=first", authorization=f"Bearer {made['key']}") as stream:
        names = [await stream.next() for _ in range(2)]
        assert OTHER not in str(names)
        assert OWN in str(names)
        await locked.send("DELETE", f"/keys/{made['id']}", FIRST)
        assert OTHER not in str(await stream.rest())


async def test_websocket_shows_own_types_and_ends_with_its_key(locked: Locked) -> None:
    made = await locked.create("read", types=["add"])
    headers = {"Authorization": f"Bearer {made['key']}"}
    async with open_websocket(locked.live, additional_headers=headers) as client:
        await client.send(type="subscribe", id="b", types=[f"{SECRET}.*"])
        refused = await client.receive("error")
        assert "limited to add" in refused["detail"]
        await client.send(type="subscribe", id="a", after="first")
        await client.receive("subscribed")
        found = [await client.receive("event") for _ in range(2)]
        assert OTHER not in str(found)
        await locked.send("DELETE", f"/keys/{made['id']}", FIRST)
        code, reason = await client.wait_closed()
        assert (code, "revoked" in reason) == (1008, True)


async def test_rotated_key_is_valid_besides_the_new_one_for_a_time(locked: Locked) -> None:
    made = await locked.create("read")
    first = await locked.send("POST", f"/keys/{made['id']}/rotate", FIRST, json={"overlap": 3600})
    for key in (made["key"], first.json()["key"]):
        assert (await locked.send("GET", "/job-types", key)).status_code == 200
    second = await locked.send("POST", f"/keys/{made['id']}/rotate", FIRST, json={"overlap": 0})
    assert (await locked.send("GET", "/job-types", second.json()["key"])).status_code == 200
    problem(await locked.send("GET", "/job-types", first.json()["key"]), 401, "unauthorized")
    problem(await locked.send("POST", f"/keys/{OWN}/rotate", FIRST, json={}), 404, "key-not-found")


async def test_key_is_nowhere_after_it_was_shown(locked: Locked) -> None:
    made = await locked.create("read")
    answer = await locked.send("GET", "/job-types", made["key"])
    assert answer.status_code == 200
    listed = await locked.send("GET", "/keys", FIRST)
    assert made["id"] in listed.text
    assert made["key"] not in listed.text
    files = [each.read_bytes() for each in Path(locked.live.store.url.removeprefix("sqlite:///")).parent.iterdir()]
    assert len(files) >= 1
    assert all(made["key"].removeprefix("jobtape_").encode() not in content for content in files)


async def test_revocation_elsewhere_takes_effect_within_seconds(locked: Locked) -> None:
    made = await locked.create("read")
    assert (await locked.send("GET", "/job-types", made["key"])).status_code == 200
    locked.live.store.api_keys.revoke(made["id"])  # as another process does

    async def refused() -> bool:
        return bool((await locked.send("GET", "/job-types", made["key"])).status_code == 401)

    await eventually(refused, timeout=20)
    keys = (await locked.send("GET", "/keys", FIRST)).json()["items"]
    assert next(key for key in keys if key["id"] == made["id"])["used_at"] is not None


async def test_rate_is_limited_by_key(locked: Locked) -> None:
    key = await locked.key("read", rate=0.01)
    assert (await locked.send("GET", "/job-types", key)).status_code == 200
    answer = await locked.send("GET", "/job-types", key)
    problem(answer, 429, "too-many-requests")
    assert 1 <= int(answer.headers["retry-after"]) <= 100


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["all"]},
        {"name": "x", "scopes": ["read"], "types": ["jobtape.flow"]},
        {"name": "x", "scopes": ["read"], "types": ["*"]},
        {"name": "x", "scopes": ["read"], "expires_in": 5, "expires_at": "2030-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["read"], "rate": 0},
        {"name": "x", "scopes": ["read"], "more": 1},
    ],
)
async def test_invalid_key_is_refused(locked: Locked, body: dict[str, Any]) -> None:
    problem(await locked.send("POST", "/keys", FIRST, json=body), 422, "invalid-key")


async def test_api_without_key_creates_none(live_sqlite: LiveApi) -> None:
    answer = await live_sqlite.api.client.post("/keys", json={"name": "x", "scopes": ["read"]})
    problem(answer, 409, "keys-not-required")
