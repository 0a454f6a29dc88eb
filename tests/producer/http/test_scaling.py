"""``GET /scaling``: how many workers a queue needs."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from jobtape.schemas.events import Started, StartedData
from jobtape.view.store import Store
from tests.producer.http.test_read import fill
from tests.producer.running_api import Api, api, problem, without_broker
from tests.view.samples import SOURCE, submitted, succeeded

pytestmark = pytest.mark.anyio


@pytest.fixture
async def served(sqlite_url: str) -> AsyncIterator[Api]:
    now = datetime.now(UTC)
    jobs = [submitted(n, now - timedelta(minutes=10 - n), queue="main" if n < 4 else "main.high") for n in range(6)]
    later = submitted(7, now - timedelta(hours=1), queue="main", run_at=now + timedelta(hours=1))
    data = StartedData(job_type="add", run=1, attempt=1, execution="e", worker="w")
    started = Started(id="s", source=SOURCE, subject=jobs[0].subject, time=now, data=data)
    store = Store(sqlite_url)
    store.migrate()
    fill(store, *jobs, later, started, succeeded(jobs[1]))
    store.close()
    async with api(without_broker(sqlite_url), ready=False) as opened:
        yield opened


async def test_scaling_counts_ready_and_running_jobs_of_all_lanes(served: Api) -> None:
    answer = await served.client.get("/scaling", params={"queue": "main"})
    found = answer.json()
    assert (found["ready"], found["running"], found["wanted"]) == (4, 1, 1)
    assert 8 * 60 <= found["oldest_seconds"] < 9 * 60


async def test_wanted_workers_have_a_slot_for_each_job(served: Api) -> None:
    for slots, wanted in ((1, 5), (2, 3), (5, 1)):
        answer = await served.client.get("/scaling", params={"queue": "main", "slots": slots})
        assert answer.json()["wanted"] == wanted


async def test_one_lane_is_a_queue(served: Api) -> None:
    answer = await served.client.get("/scaling", params={"queue": "main.high"})
    assert (answer.json()["ready"], answer.json()["running"]) == (2, 0)


async def test_queue_of_a_job_type_without_jobs_needs_no_worker(served: Api) -> None:
    answer = await served.client.get("/scaling", params={"queue": "orders"})
    assert answer.json() == {"ready": 0, "running": 0, "oldest_seconds": 0, "wanted": 0}


async def test_unknown_queue_and_missing_queue_are_refused(served: Api) -> None:
    problem(await served.client.get("/scaling", params={"queue": "nowhere"}), 404, "not-found")
    problem(await served.client.get("/scaling"), 422, "invalid-query")
    problem(await served.client.get("/scaling", params={"queue": "main", "slots": 0}), 422, "invalid-query")
