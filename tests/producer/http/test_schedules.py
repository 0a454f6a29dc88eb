"""Schedules over HTTP: created, replaced, listed, paused, triggered and deleted."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

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


async def test_schedule_is_created_replaced_paused_and_deleted(at_work: Api) -> None:
    client = at_work.client
    first = (await client.put("/schedules/nightly", json=NIGHTLY)).json()
    assert (first["type"], first["state"]) == ("jobtape.schedule", "held")
    assert (await client.put("/schedules/nightly", json=NIGHTLY)).json()["id"] == first["id"]
    found = (await client.get("/schedules/nightly?ticks=3")).json()
    assert (found["type"], found["queue"], found["labels"], found["paused"]) == ("add", "default", {"team": "a"}, False)
    times = [datetime.fromisoformat(each) for each in found["next"]]
    assert len(times) == 3
    assert timedelta(hours=23) <= times[1] - times[0] <= timedelta(hours=25)
    second = (await client.put("/schedules/nightly", json={**NIGHTLY, "cron": "0 5 * * *"})).json()
    assert second["id"] != first["id"]
    assert list(await listed(at_work)) == ["nightly"]
    paused = (await client.post("/schedules/nightly/pause")).json()
    assert (await listed(at_work))["nightly"]["next"] == []
    assert (await client.post("/schedules/nightly/resume")).json()["id"] != paused["id"]
    assert (await listed(at_work))["nightly"]["cron"] == "0 5 * * *"
    assert len((await client.delete("/schedules/nightly")).json()["ended"]) == 1
    assert await listed(at_work) == {}
    problem(await client.delete("/schedules/nightly"), 404, "schedule-not-found")
    past = (await client.get("/jobs", params={"type": "jobtape.schedule", "state": "cancelled"})).json()["items"]
    assert len(past) == 4, "the history of the schedule is kept"


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
