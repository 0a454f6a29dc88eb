"""``Prefer: wait=N``: the response has the outcome, or the current job after N seconds."""

import asyncio
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import Request

from jobtape.producer.live.outcome_wait import preferred_wait
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.live_api import LiveApi, live_api
from tests.producer.running_api import Api, api, problem, settings_for
from tests.view.samples import begin, job_id, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

ADD = {"type": "add", "payload": {"x": 3, "y": 4}}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["wait=10"], 10),
        (["WAIT = 10"], 10),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10; foo=bar"], 10),
        (['foo="a, wait=3", wait=10'], 10),
        (['foo; bar="x\\"y,wait=2", wait="7"'], 7),
        (["wait=10, wait=20"], 10),
        (["wait=0"], 0),
        (["wait=3600"], 60),
        (["wait=" + "9" * 5000], 60),
        (["wait=99999999999999999999"], 60),
        ([], None),
        ([""], None),
        ([",,;,"], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=x, wait=5"], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=1 2"], None),
        (["wait=\u0663"], None),
        (["await=10"], None),
        (["wait:10"], None),
        (['"wait=10"'], None),
        (['foo="unclosed, wait=10'], 10),
        (["x" * 10_000 + ",wait=10"], None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wait_preference_is_parsed(headers: list[str], seconds: int | None) -> None:
    raw = [(b"prefer", header.encode("utf-8")) for header in headers]
    assert preferred_wait(Request({"type": "http", "headers": raw}), 60) == seconds
    assert preferred_wait(Request({"type": "http", "headers": raw}), 0) is None


async def test_wait_returns_outcome(rig: Rig, store: Store, broker_url: str, database_url: str) -> None:
    settings = settings_for(broker_url, rig.topology, database_url)
    async with api(settings) as served, rig.projector(store), rig.worker(add):
        answer = await served.client.post("/jobs", json=ADD, headers={"Prefer": "wait=20"})
        assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
        job = answer.json()
        assert (job["state"], job["result"]) == ("succeeded", 7)
        assert answer.headers["location"] == f"/jobs/{job['id']}"
        again = await served.client.get(f"/jobs/{job['id']}")
        assert again.json() == job
        assert "preference-applied" not in again.headers
        keyed = {"Prefer": "wait=20", "Idempotency-Key": "k"}
        first = await served.client.post("/jobs", json=ADD, headers=keyed)
        second = await served.client.post("/jobs", json=ADD, headers=keyed)
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json() == second.json()
        bad = await served.client.post("/jobs", json={"type": "nope", "payload": {}}, headers=keyed)
        problem(bad, 422, "unknown-job-type")


async def test_two_hundred_waiting_requests_share_threads(projected: Api, rig: Rig) -> None:
    async def one(n: int) -> httpx.Response:
        if n % 2:
            return await projected.client.post("/jobs", json=ADD, headers={"Prefer": "wait=60"})
        job = await projected.submit(x=n)
        return await projected.client.get(f"/jobs/{job['id']}", headers={"Prefer": "wait=60"})

    before = threading.active_count()
    requests = [asyncio.create_task(one(n)) for n in range(200)]
    await eventually(lambda: projected.producer.listeners.now["wait"] == 200)
    assert threading.active_count() <= before + 20
    async with rig.worker(add):
        answers = await asyncio.gather(*requests)
    assert {answer.json()["state"] for answer in answers} == {"succeeded"}
    assert {answer.headers["preference-applied"] for answer in answers} == {"wait=60"}
    await eventually(lambda: projected.producer.listeners.now["wait"] == 0)


async def test_wait_returns_current_job_after_timeout(projected: Api) -> None:
    answer = await projected.client.post("/jobs", json=ADD, headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.headers["retry-after"]
    url = answer.headers["location"]
    answer = await projected.client.get(url, headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    etag = answer.headers["etag"]
    answer = await projected.client.get(url, headers={"Prefer": "wait=1", "If-None-Match": etag})
    assert (answer.status_code, answer.headers["preference-applied"], answer.content) == (304, "wait=1", b"")


async def test_waiting_submission_without_database_is_accepted(
    settings: Settings, rig: Rig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = f"sqlite:///{tmp_path_factory.mktemp('none')}/none/view.db"
    async with api(settings.model_copy(update={"database_url": nowhere}), add) as served:
        answer = await served.client.post("/jobs", json=ADD, headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")


@pytest.fixture
async def queued(view: Store, sqlite_url: str) -> AsyncIterator[LiveApi]:
    """A view with a job that waits for a worker, in an API that allows three waiting requests."""
    begin(view)
    record(view, submitted(1))
    async with live_api(view, sqlite_url, max_listeners=3) as opened:
        yield opened


URL = f"/jobs/{job_id(1)}"


async def get(live: LiveApi, **headers: str) -> httpx.Response:
    return await live.api.client.get(URL, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_wait_with_etag_ends_at_any_change(queued: LiveApi) -> None:
    etag = (await get(queued)).headers["etag"]
    outcome = asyncio.create_task(get(queued, Prefer="wait=60"))
    change = asyncio.create_task(get(queued, Prefer="wait=60", If_None_Match=etag))
    await eventually(lambda: queued.listeners == 2)
    record(queued.store, succeeded(submitted(1), 5))
    for answer in (await outcome, await change):
        assert (answer.status_code, answer.json()["result"]) == (200, 5)
    # What has changed, or ended, before one asks, is not waited for.
    assert (await get(queued, Prefer="wait=60", If_None_Match=etag)).status_code == 200
    assert (await get(queued, Prefer="wait=60")).headers["preference-applied"] == "wait=60"


async def test_wait_beyond_limit_returns_at_once(queued: LiveApi) -> None:
    waiting = [asyncio.create_task(get(queued, Prefer="wait=60")) for _ in range(3)]
    await eventually(lambda: queued.listeners == 3)
    answer = await get(queued, Prefer="wait=60")
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert "preference-applied" not in answer.headers
    record(queued.store, succeeded(submitted(1)))
    assert {(await request).json()["state"] for request in waiting} == {"succeeded"}


async def test_disconnected_waiting_client_frees_slot(queued: LiveApi) -> None:
    async with httpx.AsyncClient(base_url=queued.url, trust_env=False) as client:
        request = asyncio.create_task(client.get(URL, headers={"Prefer": "wait=60"}))
        await eventually(lambda: queued.listeners == 1)
        request.cancel()
        await asyncio.wait({request})
    await queued.wait_idle()


async def test_stopping_process_answers_waiting_requests(queued: LiveApi) -> None:
    request = asyncio.create_task(get(queued, Prefer="wait=60"))
    await eventually(lambda: queued.listeners == 1)
    queued.api.producer.listeners.end()
    assert (await request).json()["state"] == "queued"
    await queued.wait_idle()
