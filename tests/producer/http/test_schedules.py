"""Schedules over HTTP: created, replaced, listed, paused, triggered and deleted."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest

from jobtape import Cron, job
from jobtape.producer.http.routes.rules.schedules import ScheduleBody
from jobtape.schemas.rules.schedule import Ticks
from jobtape.schemas.submission import Submission
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, problem
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

NIGHTLY: dict[str, Any] = {
    "type": "add",
    "payload": {"x": 1},
    "cron": "30 2 * * *",
    "tz": "Europe/Berlin",
    "labels": {"team": "a"},
}


@pytest.fixture
async def at_work(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    async with api(settings, add) as served, rig.projector(view), rig.worker(add):
        yield served


async def listed(served: Api) -> dict[str, Any]:
    answer = await served.client.get("/schedules")
    assert answer.status_code == 200, answer.text
    return {each["name"]: each for each in answer.json()["items"]}


async def ticks(served: Api, name: str, n: int) -> list[dict[str, Any]]:
    answer = await served.client.get(f"/schedules/{name}/ticks", params={"n": n})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def jobs_of(served: Api, name: str) -> list[dict[str, Any]]:
    query = {"label": f"schedule:{name}", "limit": "100"}
    items: list[dict[str, Any]] = (await served.client.get("/jobs", params=query)).json()["items"]
    return items


async def test_schedule_is_created_replaced_paused_and_deleted(at_work: Api) -> None:
    client = at_work.client
    first = (await client.put("/schedules/nightly", json=NIGHTLY)).json()
    assert (first["type"], first["state"]) == ("jobtape.schedule", "held")
    assert (await client.put("/schedules/nightly", json=NIGHTLY)).json()["id"] == first["id"]
    found = (await client.get("/schedules/nightly")).json()
    assert (found["type"], found["queue"], found["labels"], found["paused"]) == ("add", "default", {"team": "a"}, False)
    assert (found["origin"], found["latest"]) == (None, None)
    times = [datetime.fromisoformat(each["at"]) for each in await ticks(at_work, "nightly", 3)]
    assert datetime.fromisoformat(found["next"]) == times[0]
    assert len(times) == 3
    assert timedelta(hours=23) <= times[1] - times[0] <= timedelta(hours=25)
    second = (await client.put("/schedules/nightly", json={**NIGHTLY, "cron": "0 5 * * *"})).json()
    assert second["id"] != first["id"]
    assert list(await listed(at_work)) == ["nightly"]
    paused = (await client.post("/schedules/nightly/pause")).json()
    assert (await listed(at_work))["nightly"]["next"] is None
    assert (await client.post("/schedules/nightly/resume")).json()["id"] != paused["id"]
    assert (await listed(at_work))["nightly"]["cron"] == "0 5 * * *"
    assert len((await client.delete("/schedules/nightly")).json()["ended"]) == 1
    assert await listed(at_work) == {}
    problem(await client.delete("/schedules/nightly"), 404, "schedule-not-found")
    past = (await client.get("/jobs", params={"type": "jobtape.schedule", "state": "cancelled"})).json()["items"]
    assert len(past) == 4, "the history of the schedule is kept"


async def test_schedule_is_replaced_only_in_the_version_that_if_match_names(at_work: Api) -> None:
    """Of many changes of one version at once, one is accepted. A pause at the same time loses no change."""
    client, url = at_work.client, "/schedules/nightly"
    created = await client.put(url, json=NIGHTLY)
    tag = created.headers["etag"]
    assert tag == f'"{created.json()["id"]}"' == (await client.get(url)).headers["etag"]

    async def put(minute: int, if_match: str) -> httpx.Response:
        body = {**NIGHTLY, "cron": f"{minute} 3 * * *"}
        return await client.put(url, json=body, headers={"If-Match": if_match})

    for wrong in (f"W/{tag}", '"other"', ""):
        assert "read it again" in problem(await put(1, wrong), 412, "schedule-changed")["detail"]
    answers = await asyncio.gather(*(put(n, f'"other", {tag}') for n in range(8)))
    (accepted,) = [each for each in answers if each.status_code == 202]
    assert {each.status_code for each in answers} == {202, 412}
    now = (await client.get(url)).json()
    assert (now["id"], now["cron"]) == (accepted.json()["id"], accepted.json()["payload"]["cron"])
    again = await client.put(url, json={**NIGHTLY, "cron": now["cron"]}, headers={"If-Match": tag})
    assert again.json()["id"] == now["id"], "the same schedule again changes nothing"
    changed, _ = await asyncio.gather(put(9, f'"{now["id"]}"'), client.post(f"{url}/pause"))
    paused = (await client.get(url)).json()
    assert (paused["cron"], paused["paused"]) == ("9 3 * * *" if changed.status_code == 202 else now["cron"], True)
    problem(await put(10, tag), 412, "schedule-changed")
    assert (await put(11, "*")).status_code == 202
    await client.delete(url)
    for each in (tag, "*"):
        assert "there is no schedule" in problem(await put(1, each), 412, "schedule-changed")["detail"]


async def test_ticks_and_triggers_run_the_job(at_work: Api) -> None:
    await at_work.client.put("/schedules/often", json={**NIGHTLY, "cron": None, "tz": "UTC", "every": 1})
    await at_work.client.put("/schedules/rare", json={**NIGHTLY, "every": 86_400, "cron": None, "overlap": "allow"})
    triggered = (await at_work.client.post("/schedules/rare/trigger")).json()
    assert triggered["labels"] == {"team": "a", "schedule": "rare"}

    async def done(name: str) -> bool:
        query = {"label": f"schedule:{name}", "state": "succeeded"}
        return bool((await at_work.client.get("/jobs", params=query)).json()["items"])

    await eventually(lambda: done("often"))
    await eventually(lambda: done("rare"))
    latest = (await listed(at_work))["rare"]["latest"]
    assert (latest["id"], latest["state"]) == (triggered["id"], "succeeded")


async def test_wrong_schedules_are_refused(at_work: Api) -> None:
    async def refused(kind: str, **values: Any) -> str:
        answer = await at_work.client.put("/schedules/nightly", json={**NIGHTLY, **values})
        return str(problem(answer, 422, kind)["detail"])

    assert "either cron or every" in await refused("invalid-schedule", every=5)
    assert "no time zone" in await refused("invalid-schedule", tz="Europe/Berlyn")
    assert "Bad hour" in await refused("invalid-schedule", cron="0 25 * * *")
    await refused("invalid-schedule", delay=5)
    await refused("unknown-job-type", type="ad")
    await refused("invalid-payload", payload={"x": "one"})
    problem(await at_work.client.post("/schedules/none/trigger"), 404, "schedule-not-found")


async def test_ticks_mark_days_on_which_clocks_change(at_work: Api) -> None:
    await at_work.client.put("/schedules/nightly", json=NIGHTLY)
    await at_work.client.post("/schedules/nightly/pause")
    found = await ticks(at_work, "nightly", 100)
    more = await ticks(at_work, "nightly", 1)
    assert more == found[:1], "also while it is paused"
    offsets = [datetime.fromisoformat(each["local"]).utcoffset() for each in found]
    assert {each["local"][11:16] for each in found if not each["clock_change"]} == {"02:30"}
    for (before, after), each in zip(pairwise(offsets), found[1:], strict=True):
        assert each["clock_change"] or before == after
    problem(await at_work.client.get("/schedules/nightly/ticks?n=101"), 422, "invalid-query")
    problem(await at_work.client.get("/schedules/none/ticks"), 404, "schedule-not-found")


async def test_backfill_submits_one_job_for_each_tick_that_has_none(at_work: Api) -> None:
    """Also of a tick that the projector submitted, however often it is repeated."""
    client = at_work.client
    await client.put("/schedules/hourly", json={**NIGHTLY, "cron": None, "tz": "UTC", "every": 3600})
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    ask = {"since": (hour - timedelta(hours=9)).isoformat(), "until": hour.isoformat(), "limit": 4}
    first = await client.post("/schedules/hourly/backfill", json=ask)
    assert first.status_code == 202, first.text
    times = [datetime.fromisoformat(each["at"]) for each in first.json()["submitted"]]
    assert times == [hour - timedelta(hours=n) for n in (9, 8, 7, 6)]
    assert datetime.fromisoformat(first.json()["next"]) == hour - timedelta(hours=5)
    second = (await client.post("/schedules/hourly/backfill", json={**ask, "limit": 100})).json()
    assert (len(second["submitted"]), second["existing"], second["next"]) == (5, 4, None)
    assert (await client.post("/schedules/hourly/backfill", json=ask)).json()["submitted"] == []

    async def done() -> bool:
        return [each["state"] for each in await jobs_of(at_work, "hourly")] == ["succeeded"] * 9

    await eventually(done)
    ids = {each["job"] for each in first.json()["submitted"] + second["submitted"]}
    assert {each["id"] for each in await jobs_of(at_work, "hourly")} == ids


async def test_backfill_submits_no_tick_that_is_to_come(at_work: Api) -> None:
    await at_work.client.put("/schedules/hourly", json={**NIGHTLY, "cron": None, "tz": "UTC", "every": 3600})
    now = datetime.now(UTC)
    ask = {"since": now.isoformat(), "until": (now + timedelta(days=1)).isoformat()}
    answer = await at_work.client.post("/schedules/hourly/backfill", json=ask)
    assert answer.json() == {"submitted": [], "existing": 0, "next": None}
    for wrong in ({}, {"since": "yesterday"}, {"since": now.isoformat(), "limit": 0}):
        problem(await at_work.client.post("/schedules/hourly/backfill", json=wrong), 422, "invalid-schedule")


async def test_sync_replaces_the_schedules_of_its_origin_only(at_work: Api) -> None:
    client = at_work.client
    named = {name: {**NIGHTLY, "name": name} for name in ("a", "b", "hand")}

    async def sync(*names: str, **more: Any) -> dict[str, list[str]]:
        body = {"origin": "code", "items": [named[name] for name in names]} | more
        answer = await client.put("/schedules", json=body)
        assert answer.status_code == 200, answer.text
        return {what: found for what, found in answer.json().items() if found}

    await client.put("/schedules/hand", json=NIGHTLY)
    assert await sync("a", "b", dry_run=True) == {"created": ["a", "b"]}
    assert list(await listed(at_work)) == ["hand"]
    assert await sync("a", "b") == {"created": ["a", "b"]}
    assert await sync("a", "b", origin="other") == {"refused": ["a", "b"]}
    assert await sync(origin="other") == {}
    await client.post("/schedules/a/pause")
    assert await sync("a", "b", "hand") == {"unchanged": ["a", "b"], "refused": ["hand"]}
    named["a"]["cron"] = "0 5 * * *"
    assert await sync("a") == {"changed": ["a"], "removed": ["b"]}
    found = await listed(at_work)
    assert list(found) == ["a", "hand"]
    assert (found["a"]["cron"], found["a"]["paused"], found["a"]["origin"]) == ("0 5 * * *", True, "code")
    twice = {"origin": "code", "items": [named["a"], named["a"]]}
    problem(await client.put("/schedules", json=twice), 422, "invalid-schedule")
    wrong = {"origin": "code", "items": [{**named["b"], "cron": "0 25 * * *"}]}
    refused = problem(await client.put("/schedules", json=wrong), 422, "invalid-schedule")
    assert refused["errors"][0]["pointer"] == "/items/0/cron"
    assert list(await listed(at_work)) == ["a", "hand"], "nothing is changed before everything is checked"


async def test_job_types_show_the_schedules_of_the_code(settings: Settings, rig: Rig) -> None:
    @job("report", schedule=Cron("0 9 * * MON-FRI", tz="Europe/Berlin", labels={"team": "a"}))
    def report() -> None:
        """Report."""

    async with api(settings, report) as served:
        items = (await served.client.get("/job-types")).json()["items"]
    (found,) = next(each for each in items if each["name"] == "report")["schedules"]
    assert (found["name"], found["cron"], found["tz"]) == ("report", "0 9 * * MON-FRI", "Europe/Berlin")
    assert (found["payload"], found["labels"]) == ({}, {"team": "a"})


def test_schedule_has_all_fields_of_a_submission_but_its_time() -> None:
    own = ScheduleBody.model_fields.keys() - Ticks.model_fields.keys()
    assert own == Submission.model_fields.keys() - {"delay", "run_at", "then"}
