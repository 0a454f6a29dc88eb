"""``GET /workers``: what workers run, that they stop, and that one was killed."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update

from jobtape.consumer.projector.maintenance import worker_registry
from jobtape.consumer.worker import signs_of_life
from jobtape.schemas.messages.worker_sign import GONE_AFTER, SILENT_AFTER
from jobtape.view import tables
from jobtape.view.store import Store
from tests.consumer import jobs
from tests.consumer.installation import Rig
from tests.producer.http.test_metrics import scrape, value
from tests.producer.running_api import Api
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def closed_gate() -> Iterator[None]:
    """Close the gate for which ``hold`` jobs wait."""
    jobs.gate.clear()
    yield
    jobs.gate.set()


@pytest.fixture(autouse=True)
def _frequent_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs_of_life, "BUSY_INTERVAL", 0.05)
    monkeypatch.setattr(worker_registry, "PAUSE", 0.05)


async def workers(served: Api) -> list[dict[str, Any]]:
    answer = await served.client.get("/workers")
    assert answer.status_code == 200
    assert answer.json()["collected"] is True
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def listed(served: Api, *states: str, running: int = 0) -> list[dict[str, Any]]:
    """Wait for workers in these states that together run so many jobs."""

    async def as_wanted() -> list[dict[str, Any]] | bool:
        found = await workers(served)
        fits = [each["state"] for each in found] == list(states) and sum(each["running"] for each in found) == running
        return fits and (found or True)

    found = await eventually(as_wanted)
    return found if isinstance(found, list) else []


async def test_worker_shows_what_it_runs_and_that_it_stops(projected: Api, rig: Rig, closed_gate: None) -> None:
    async with rig.worker(jobs.hold, name="w1", queues=["default"], concurrency=3):
        first, second = await rig.submit("hold"), await rig.submit("hold")
        (shown,) = await listed(projected, "alive", running=2)
        assert (shown["name"], shown["queues"], shown["job_types"]) == ("w1", ["default"], ["hold"])
        assert (shown["slots"], shown["fault"]) == (3, None)
        assert {(each["job_id"], each["job_type"], each["run"], each["attempt"]) for each in shown["executions"]} == {
            (first, "hold", 1, 1),
            (second, "hold", 1, 1),
        }
        assert all(shown["started_at"] <= each["since"] for each in shown["executions"])
        samples = await scrape(projected)
        assert value(samples, "jobtape_worker_slots", "used") == 2
        assert value(samples, "jobtape_worker_slots", "free") == 1
        rig.stop("w1")
        (draining,) = await listed(projected, "draining", running=2)
        assert draining["id"] == shown["id"]
        jobs.gate.set()
        await listed(projected)


async def test_killed_worker_turns_silent_and_disappears(projected: Api, rig: Rig, view: Store) -> None:
    def age(seconds: float) -> None:
        with view._database.writing() as connection:
            connection.execute(update(tables.workers).values(at=tables.workers.c.at - seconds))

    async with rig.worker(jobs.add, stop=False):
        await listed(projected, "alive")
    async with rig.worker(jobs.add):
        await listed(projected, "alive", "alive")
    await listed(projected, "alive")
    age(SILENT_AFTER + 1)
    await listed(projected, "silent")
    age(GONE_AFTER)
    await listed(projected)
