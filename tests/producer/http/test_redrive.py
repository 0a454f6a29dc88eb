"""Redriving over HTTP: one job, and all jobs that match a filter."""

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
        assert rig.names(job_id).count("redriven") == 1


async def test_redrive_by_filter(at_work: Api, rig: Rig) -> None:
    labelled = [await submit(at_work, labels={"kind": "red"}) for _ in range(5)]
    others = [await submit(at_work), await submit(at_work, payload={"fail": False}, labels={"kind": "red"})]
    for job_id in (*labelled, others[0]):
        await state(at_work, job_id, run=1)
    await state(at_work, others[1], run=1, state="succeeded")

    async def redrives(**query: Any) -> dict[str, Any]:
        answer = await at_work.client.post("/redrives", json=query)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    query = {"label": ["kind:red"], "type": ["flaky"], "reason": ["error"], "queue": ["default"]}
    events = len(rig.events)
    dry = await redrives(**query, dry_run=True)
    assert (dry["matched"], dry["accepted"], dry["next"]) == (5, 0, None)
    assert dry["ids"] == labelled[::-1]
    assert len(rig.events) == events, "a dry run changes nothing"
    assert (await redrives(reason=["timeout"]))["matched"] == 0
    page = await redrives(**query, limit=2)
    assert (page["matched"], page["accepted"], page["ids"], page["next"]) == (2, 2, labelled[:2:-1], labelled[3])
    rest = await redrives(**query, cursor=page["next"])
    assert (rest["matched"], rest["accepted"], rest["refused"], rest["unknown"]) == (3, 3, 0, 0)
    for job_id in labelled:
        await state(at_work, job_id, run=2)
    done = await redrives(state=["succeeded"])
    assert done["ids"] == [others[1]]
    await state(at_work, others[1], run=2, state="succeeded")
    assert (await at_work.client.get(f"/jobs/{others[0]}")).json()["run"] == 1
    found = (await at_work.client.get("/jobs?reason=error&limit=100")).json()["items"]
    assert {each["id"] for each in found} == {*labelled, others[0]}


async def test_invalid_redrives_are_refused(served: Api) -> None:
    invalid: list[tuple[Any, str]] = [
        ({"state": ["running"]}, "/state/0"),
        ({"state": []}, "/state"),
        ({"label": ["red"]}, "/label/0"),
        ({"since": "yesterday"}, "/since"),
        ({"limit": 10_001}, "/limit"),
        ({"limit": "5"}, "/limit"),
        ({"dry_run": "yes"}, "/dry_run"),
        ({"reason": ["because"]}, "/reason/0"),
        ({"colour": ["red"]}, "/colour"),
        ([], ""),
    ]
    for body, pointer in invalid:
        details = problem(await served.client.post("/redrives", json=body), 422, "invalid-redrive")
        assert details["errors"][0]["pointer"] == pointer


async def test_redrive_without_projector(served: Api, rig: Rig) -> None:
    served.producer._barrier._timeout = 0.3
    problem(await served.client.post("/redrives", json={}), 503, "view-behind")
    problem(
        await served.client.post("/redrives", content=b"{", headers={"Content-Type": "application/json"}),
        400,
        "not-json",
    )
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
            return body if body["timers"]["warning"] else None

        async with rig.projector(view):
            body = await eventually(late, what="the job is late")
        assert body["timers"]["behind"] > 0.1
        assert "see that the projector runs, and that their queues exist" in body["timers"]["warning"]
        assert "the queue is missing" in body["workers"]["default"]["warning"]
