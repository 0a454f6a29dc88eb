"""Pausing queues and job types, and changing limits, over HTTP, with a worker and a projector."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Any

import pytest

from jobtape import Concurrency, Debounce, Every, Rate, Unique, job
from jobtape.schemas.queueing.lanes import queues_of
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.producer.running_api import Api, api, problem
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@job("quick")
def quick() -> str:
    return "done"


@job("other")
def other() -> str:
    return "done"


@job("filed", queue="orders")
def filed() -> str:
    return "done"


@job("limited", limits=[Concurrency(1)])
async def limited(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return "done"


@job("once", unique=Unique(by=["label:tenant"]))
async def once(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return "done"


@job("urgent", queue="parcels", lane="high")
def urgent() -> str:
    return "done"


@job(
    "every-gate",
    ordering_key="customer",
    on_failure="hold",
    limits=[Concurrency(5, by="customer"), Rate(100, per=60, name="api")],
    take_turns="label:tenant",
    debounce=Debounce(5, by=["customer"], at_most=60),
    schedule=Every(hours=1),
)
def every_gate(customer: str = "a") -> None:
    pass


TYPES = (quick, other, filed, limited, once, urgent, every_gate)


@pytest.fixture
async def at_work(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    """An API with a projector and a worker."""
    queues = queues_of(TYPES)
    async with api(settings, *TYPES) as served, rig.projector(view), rig.worker(*TYPES, queues=queues):
        yield served


async def submit(served: Api, job_type: str, **more: Any) -> str:
    answer = await served.client.post("/jobs", json={"type": job_type, "payload": {}} | more)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


async def becomes(served: Api, job_id: str, state: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        found: dict[str, Any] = (await served.client.get(f"/jobs/{job_id}")).json()
        return found if found["state"] == state else None

    return await eventually(reached, what=f"{job_id} is {state}")


async def test_jobs_of_paused_queue_wait_until_it_is_resumed(at_work: Api, rig: Rig, view: Store) -> None:
    """Those on the queue and those that are due later; other queues go on. A worker that starts then takes none."""
    rule = await at_work.client.post("/queues/orders/pause")
    assert (rule.status_code, rule.json()["state"], rule.json()["payload"]["queue"]) == (202, "held", "orders")
    assert (await at_work.client.post("/queues/orders/pause")).json()["id"] == rule.json()["id"]
    await eventually(lambda: _no_consumer(rig))
    async with rig.worker(*TYPES):
        waiting = [await submit(at_work, "filed"), await submit(at_work, "filed", delay=0.05)]
        await becomes(at_work, await submit(at_work, "quick"), "succeeded")
        await becomes(at_work, await submit(at_work, "quick", delay=0.1), "succeeded")
        found = [(await at_work.client.get(f"/jobs/{each}")).json()["state"] for each in waiting]
        assert found == ["queued", "scheduled"]
        assert view.open_jobs.earliest_timed() is None, "a paused job is not late"
        resumed = await at_work.client.post("/queues/orders/resume")
        assert resumed.json() == {"ended": [rule.json()["id"]]}
        for each in waiting:
            await becomes(at_work, each, "succeeded")
    assert (await at_work.client.post("/queues/orders/resume")).json() == {"ended": []}
    report = await Checker(rig.url, rig.topology).check(view)
    assert not report.problems, str(report)


async def _no_consumer(rig: Rig, queue: str = "orders") -> bool:
    return await rig.consumers(queue) == 0


async def test_jobs_of_paused_type_are_deferred_until_it_is_resumed(at_work: Api) -> None:
    await at_work.client.post("/job-types/quick/pause")

    async def deferred() -> str | None:
        """Submit a job. The worker reads the pause a moment after it is accepted, so the first jobs may still run."""
        tried = await submit(at_work, "quick")
        found = await eventually(lambda: _deferred_or_done(at_work, tried), what="the job is deferred or has run")
        return tried if (found["state"], found["reason"]) == ("scheduled", "paused") else None

    job_id = await eventually(deferred, what="a job is deferred")
    await becomes(at_work, await submit(at_work, "other"), "succeeded")
    await at_work.client.post("/job-types/quick/resume")
    done = await becomes(at_work, job_id, "succeeded")
    assert done["attempt"] == 1


async def _deferred_or_done(served: Api, job_id: str) -> dict[str, Any] | None:
    found: dict[str, Any] = (await served.client.get(f"/jobs/{job_id}")).json()
    return found if found["state"] in ("scheduled", "succeeded") else None


async def test_changed_limit_holds_for_waiting_jobs_at_once(at_work: Api) -> None:
    running = [await submit(at_work, "limited", payload={"seconds": 60}) for _ in range(3)]
    await becomes(at_work, running[0], "running")
    assert (await becomes(at_work, running[2], "held"))["waits_for"] == ["limit limited, at most 1"]
    changed = await at_work.client.put("/limits/limited", json={"at_most": 2})
    assert changed.status_code == 202
    await becomes(at_work, running[1], "running")
    await at_work.client.put("/limits/limited", json={"at_most": 3})
    await becomes(at_work, running[2], "running")
    in_force = await at_work.client.get("/jobs", params={"type": "jobtape.limit", "state": "held"})
    assert [each["payload"] for each in in_force.json()["items"]] == [{"name": "limited", "key": "", "at_most": 3}]
    (listed,) = (await at_work.client.get("/limits")).json()["items"]
    rule = in_force.json()["items"][0]["id"]
    assert listed == {"name": "limited", "key": "", "at_most": 3, "per": None, "id": rule}
    barrier = at_work.producer._barrier._barrier
    number = barrier._number
    assert (await at_work.client.get("/limits", params={"committed": True})).json()["items"] == [listed]
    assert (await at_work.client.get("/schedules", params={"committed": True})).json() == {"items": []}
    assert barrier._number == number, "a page that polls puts nothing on the tape"
    assert len((await at_work.client.delete("/limits/limited")).json()["ended"]) == 1
    assert (await at_work.client.get("/limits")).json() == {"items": []}
    for each in running:
        await at_work.client.post(f"/jobs/{each}/cancel")
        await becomes(at_work, each, "cancelled")


async def test_wrong_rules_are_refused(settings: Settings, rig: Rig, view: Store) -> None:
    async with api(settings, *TYPES) as served, rig.projector(view):
        refused = problem(await served.client.post("/queues/ordres/pause"), 422, "invalid-submission")
        assert "known: default" in refused["detail"] and "orders, parcels" in refused["detail"]
        problem(await served.client.post("/job-types/quik/pause"), 422, "unknown-job-type")
        problem(await served.client.put("/limits/limited", json={"at_most": 0}), 422, "invalid-limit")
        wrong = {"type": "jobtape.pause", "payload": {"queue": "orders", "type": "quick"}}
        problem(await served.client.post("/jobs", json=wrong), 422, "invalid-payload")
        rule = (await served.client.post("/queues/orders/pause")).json()["id"]
        await served.client.post("/queues/orders/resume")
        problem(await served.client.post(f"/jobs/{rule}/redrive"), 409, "job-final")


async def test_worker_learns_of_a_pause_whose_message_is_gone(settings: Settings, rig: Rig, view: Store) -> None:
    """The stream of cancellations was deleted. The projector that becomes active publishes the pause again."""
    async with api(settings, *TYPES) as served:
        async with rig.projector(view):
            rule = (await served.client.post("/queues/orders/pause")).json()["id"]
            await becomes(served, rule, "held")
        channel = await (await rig.link.connection()).channel()
        async with channel:
            await channel.queue_delete(rig.topology.cancels.name)
        async with rig.projector(view):
            repeated = rig.nothing_on(rig.topology.cancels.name)
            await eventually(lambda: _not(repeated()), what="the pause is on the stream again")
            async with rig.worker(*TYPES):
                waits = await submit(served, "filed")
                await becomes(served, await submit(served, "quick"), "succeeded")
                assert (await served.client.get(f"/jobs/{waits}")).json()["state"] == "queued"
                await served.client.post("/queues/orders/resume")
                await becomes(served, waits, "succeeded")


async def _not(condition: Awaitable[bool]) -> bool:
    return not await condition


async def test_answer_that_waits_shows_of_which_job_it_is_a_duplicate(at_work: Api, rig: Rig) -> None:
    tenant = {"type": "once", "labels": {"tenant": "a"}}
    first = await submit(at_work, "once", payload={"seconds": 600}, labels={"tenant": "a"})
    answer = await at_work.client.post("/jobs", json=tenant | {"payload": {}}, headers={"Prefer": "wait=20"})
    later = answer.json()
    assert (answer.status_code, later["state"], later["reason"]) == (200, "cancelled", "duplicate")
    assert later["duplicate_of"] == first
    listed = (await at_work.client.get("/jobs?reason=duplicate")).json()["items"]
    assert [each["id"] for each in listed] == [later["id"]]
    await rig.read_to_end()
    assert rig.names(later["id"]) == ["submitted", "cancelled"]
    await at_work.client.post(f"/jobs/{first}/cancel")
    await becomes(at_work, first, "cancelled")
    again = await submit(at_work, "once", labels={"tenant": "a"})
    await becomes(at_work, again, "succeeded")


async def test_job_types_show_their_gates(at_work: Api) -> None:
    found = {each["name"]: each for each in (await at_work.client.get("/job-types")).json()["items"]}
    assert found["once"]["unique"] == {"name": "once", "by": ["label:tenant"], "conflict": "return"}
    names = ("ordering_key", "on_failure", "limits", "take_turns", "unique", "debounce", "schedules", "lane")
    assert [found["quick"][name] for name in names] == [None, "continue", [], None, None, None, [], None]
    every = found["every-gate"]
    assert (every["ordering_key"], every["on_failure"], every["take_turns"]) == ("customer", "hold", "label:tenant")
    assert every["limits"] == [
        {"name": "every-gate", "by": "customer", "at_most": 5, "per": None},
        {"name": "api", "by": None, "at_most": 100, "per": 60.0},
    ]
    assert every["debounce"] == {"name": "every-gate", "by": ["customer"], "seconds": 5, "at_most": 60}
    assert [(each["name"], each["every"]) for each in every["schedules"]] == [("every-gate", 3600.0)]


async def test_lane_of_a_submission(at_work: Api) -> None:
    """A lane is a part of the queue's name, and can be named in either way."""
    for options, queue in [
        ({}, "parcels.high"),
        ({"lane": "low"}, "parcels.low"),
        ({"lane": "normal"}, "parcels"),
        ({"queue": "parcels.low"}, "parcels.low"),
        ({"queue": "parcels.low", "lane": "low"}, "parcels.low"),
        ({"queue": "parcels"}, "parcels"),
        ({"queue": "parcels", "lane": "high"}, "parcels.high"),
        ({"queue": "orders"}, "orders"),
    ]:
        done = await becomes(at_work, await submit(at_work, "urgent", **options), "succeeded")
        assert (done["queue"], done["lane"]) == (queue, queue.partition(".")[2] or "normal")
    listed = (await at_work.client.get("/jobs?queue=parcels.low")).json()["items"]
    assert {each["lane"] for each in listed} == {"low"} and len(listed) == 3
    for wrong in (
        {"lane": "low", "queue": "orders"},
        {"queue": "parcels.low", "lane": "high"},
        {"queue": "orders.low"},
    ):
        answer = await at_work.client.post("/jobs", json={"type": "urgent", "payload": {}} | wrong)
        assert answer.status_code == 422, wrong
    types = {each["name"]: each["lane"] for each in (await at_work.client.get("/job-types")).json()["items"]}
    assert (types["urgent"], types["quick"]) == ("high", None)
    assert {"parcels", "parcels.high", "parcels.low"} <= (await at_work.client.get("/health/ready")).json()[
        "workers"
    ].keys()


async def test_pause_of_a_queue_holds_its_lanes(at_work: Api, rig: Rig) -> None:
    await at_work.client.post("/queues/parcels/pause")
    for lane in ("parcels", "parcels.high", "parcels.low"):
        await eventually(partial(_no_consumer, rig, lane))
    paused = await submit(at_work, "urgent")
    await becomes(at_work, await submit(at_work, "quick"), "succeeded")
    assert (await at_work.client.get(f"/jobs/{paused}")).json()["state"] == "queued"
    await at_work.client.post("/queues/parcels/resume")
    await becomes(at_work, paused, "succeeded")
    await at_work.client.post("/queues/parcels.low/pause")
    await becomes(at_work, await submit(at_work, "urgent"), "succeeded")
