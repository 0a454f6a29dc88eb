"""Redriving over HTTP: one job, and all jobs that match a filter, which can also be cancelled."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobtape import job
from jobtape.producer.monitoring import health
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.producer.running_api import Api, api, problem
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@job("flaky")
def flaky(fail: bool = True) -> str:
    if fail:
        raise ValueError("not today")
    return "done"


@pytest.fixture
async def at_work(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    """An API with a projector and a worker."""
    async with api(settings, flaky) as served, rig.projector(view), rig.worker(flaky):
        yield served


async def submit(served: Api, **more: Any) -> str:
    answer = await served.client.post("/jobs", json={"type": "flaky", "payload": {}} | more)
    job_id: str = answer.json()["id"]
    return job_id


async def state(served: Api, job_id: str, *, run: int, state: str = "failed") -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        found: dict[str, Any] = (await served.client.get(f"/jobs/{job_id}")).json()
        return found if (found["state"], found["run"]) == (state, run) else None

    return await eventually(reached, what=f"{job_id} is {state} in run {run}")


async def test_redrive_job(at_work: Api, rig: Rig) -> None:
    job_id = await submit(at_work, labels={"a": "b"})
    first = await state(at_work, job_id, run=1)
    assert first["reason"] == "error"
    answer = await at_work.client.post(f"/jobs/{job_id}/redrive")
    body = answer.json()
    assert (answer.status_code, body["state"], body["run"], body["attempt"]) == (202, "queued", 2, 1)
    assert (body["error"], body["reason"], body["finished_at"]) == (None, None, None)
    second = await state(at_work, job_id, run=2)
    assert second["cursor"] > first["cursor"]
    assert (await at_work.client.post(f"/jobs/{job_id}/redrive")).json()["run"] == 3
    await state(at_work, job_id, run=3)
    events = (await at_work.client.get(f"/jobs/{job_id}/events")).json()["items"]
    names = [event["type"].rpartition(".")[2] for event in events if event["accepted"]]
    names = [name for name in names if name != "started"]  # a slow machine has it too
    assert names == ["submitted", "failed", *["redriven", "placed", "failed"] * 2], "the history is whole"


async def test_redrive_needs_ended_job(settings: Settings, rig: Rig, view: Store) -> None:
    async with api(settings, flaky) as served, rig.projector(view):
        job_id = await submit(served)
        refused = problem(await served.client.post(f"/jobs/{job_id}/redrive"), 409, "job-not-final")
        assert refused["state"] == "queued"
        unknown = "01890a5d-ac96-774b-bcce-b302099a8057"
        problem(await served.client.post(f"/jobs/{unknown}/redrive"), 404, "job-not-found")
        problem(await served.client.post("/jobs/none/redrive"), 422, "invalid-job-id")
        problem(await served.client.post(f"/jobs/{job_id}/redrive?again=1"), 422, "invalid-query")
        async with rig.worker(flaky):
            await state(served, job_id, run=1)
        opened = await served.client.post(f"/jobs/{job_id}/redrive")
        again = await served.client.post(f"/jobs/{job_id}/redrive")
        assert (opened.status_code, again.status_code) == (202, 202)
        assert again.json()["run"] == 2
        await eventually(lambda: rig.names(job_id).count("placed") == 1)
        await rig.read_to_end()
        assert rig.names(job_id).count("redriven") == 1


async def test_bulk_action_is_previewed_then_submitted_as_job(at_work: Api, rig: Rig) -> None:
    labelled = [await submit(at_work, labels={"kind": "red"}) for _ in range(5)]
    others = [await submit(at_work), await submit(at_work, payload={"fail": False}, labels={"kind": "red"})]
    waiting = await submit(at_work, delay=3600, labels={"kind": "red"})
    for job_id in (*labelled, others[0]):
        await state(at_work, job_id, run=1)
    await state(at_work, others[1], run=1, state="succeeded")
    await rig.read_to_end()
    events = len(rig.events)

    async def preview(path: str = "/redrives", **query: Any) -> tuple[int, bool, list[str]]:
        answer = await at_work.client.post(path, json={**query, "dry_run": True})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body["matched"], body["more"], body["ids"]

    query: dict[str, Any] = {"labels": {"kind": "red"}, "type": ["flaky"], "reason": ["error"], "queue": ["default"]}
    assert await preview(**query) == (5, False, labelled[::-1])
    assert await preview(**query, limit=2) == (2, False, labelled[:2:-1])
    assert await preview(reason=["timeout"]) == (0, False, [])
    assert await preview(state=["succeeded"]) == (1, False, [others[1]])
    assert await preview(ids=[labelled[0], others[1]]) == (2, False, [others[1], labelled[0]])
    assert await preview(error="TODAY", payload={"fail": "no"}) == (0, False, [])
    assert await preview("/cancels") == (1, False, [waiting])
    assert await preview("/cancels", state=["running"]) == (0, False, [])
    await rig.read_to_end()
    assert len(rig.events) == events, "a dry run changes nothing"

    for path, wanted, job_type in (
        ("/redrives", query, "jobtape.redrive"),
        ("/cancels", {"ids": [waiting]}, "jobtape.cancel"),
    ):
        answer = await at_work.client.post(path, json=wanted)
        body = answer.json()
        assert (answer.status_code, body["type"], body["queue"]) == (202, job_type, "jobtape")
        assert answer.headers["location"] == f"/jobs/{body['id']}"
        assert {name: body["payload"][name] for name in wanted} == wanted
    assert (await preview("/cancels"))[2] == [waiting], "the built-in jobs are left out"
    assert (await preview("/cancels", type=["jobtape.redrive"]))[0] == 1


@pytest.mark.parametrize("path", ["/redrives", "/cancels"])
async def test_invalid_filters_are_refused(served: Api, path: str) -> None:
    invalid: list[tuple[Any, str]] = [
        ({"state": ["running" if path == "/redrives" else "failed"]}, "/state/0"),
        ({"ids": ["x"]}, "/ids/0"),
        ({"labels": ["red"]}, "/labels"),
        ({"since": "yesterday"}, "/since"),
        ({"since": "2030-01-31T12:00:00Z", "until": "2030-01-31T11:00:00Z"}, ""),
        ({"limit": 0}, "/limit"),
        ({"limit": "5"}, "/limit"),
        ({"dry_run": "yes"}, "/dry_run"),
        ({"reason": ["because"]}, "/reason/0"),
        ({"payload": {"a": [1]}}, "/payload/a"),
        ({"payload": {"a..b": 1}}, ""),
        ({"colour": ["red"]}, "/colour"),
        ([], ""),
    ]
    for body, pointer in invalid:
        details = problem(await served.client.post(path, json=body), 422, "invalid-filter")
        assert details["errors"][0]["pointer"].startswith(pointer), body
        assert pointer or not details["errors"][0]["pointer"]


async def test_redrive_without_projector(served: Api, rig: Rig) -> None:
    served.producer._barrier._timeout = 0.3
    problem(await served.client.post("/redrives", json={"dry_run": True}), 503, "view-behind")
    problem(
        await served.client.post("/redrives", content=b"{", headers={"Content-Type": "application/json"}),
        400,
        "not-json",
    )
    await rig.read_to_end()
    assert rig.events == []


async def test_readiness_says_how_late_delayed_jobs_are(
    settings: Settings, rig: Rig, view: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TIMERS_LATE", 0.1)
    async with api(settings, flaky) as served:

        async def readiness() -> dict[str, Any]:
            body: dict[str, Any] = (await served.client.get("/health/ready")).json()
            return body

        before = await readiness()
        assert before["timers"] == {"behind": 0.0, "warning": None}
        assert before["dead_letters"] == {"messages": 0, "warning": None}
        assert before["workers"]["default"]["consumers"] == 0
        channel = await (await rig.link.connection()).channel()
        async with channel:
            await channel.queue_delete(rig.topology.work_queue("default").name)
        await submit(served, delay=0.1)

        async def late() -> dict[str, Any] | None:
            body = await readiness()
            # The depths of the queues are looked up once a second.
            missing = "the queue is missing" in (body["workers"]["default"]["warning"] or "")
            return body if missing and body["timers"]["warning"] else None

        async with rig.projector(view):
            body = await eventually(late, what="the job is late")
        assert body["timers"]["behind"] > 0.1
        assert "see that the projector runs, and that their queues exist" in body["timers"]["warning"]
