"""Tests that a hundred clients of two API processes submit one job with one key, also when an API is killed.

A proxy between API and broker stops the API at a chosen moment. While it holds requests, the row is written and nothing
is published. While it holds answers, the event is on the tape and the row is not marked.
"""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from jobtape.schemas.events import Submitted
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.checker import Checker, Report
from tests.consumer.installation import Rig
from tests.faults import jobs
from tests.faults.apis import Apis, Clients
from tests.faults.scale import on_database
from tests.ledger import Ledger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

AT_ONCE = 100
BATCH = 300


def rows(store: Store) -> list[tuple[str, str, bool]]:
    """Return key, job id and whether it is marked, of each row."""
    with store._database.reading() as connection:
        found = connection.execute(text("SELECT key, job_id, accepted FROM idempotency")).all()
    return [(key, job_id, bool(accepted)) for key, job_id, accepted in found]


async def check_jobs(rig: Rig, store: Store, ids: set[str]) -> Report:
    """Check that these jobs have ended and that there are no others."""
    for job_id in ids:
        await rig.outcome(job_id, 60)
    report = await Checker(rig.url, rig.topology).check(store, Ledger(ok=sorted(ids)))
    assert not report.problems, str(report)
    assert report.jobs == len(ids)
    assert {job_id for _, job_id, accepted in rows(store) if accepted} == ids
    print(report)
    return report


def submissions(rig: Rig) -> int:
    """Return the number of ``submitted`` events on the tape."""
    return sum(isinstance(event, Submitted) for event in rig.events)


async def submit_first(rig: Rig, url: str) -> str:
    """Submit a first job and return its id. It opens the channel that the API needs while the answers are held."""
    async with Clients("first") as clients:
        job_id = await clients.until_accepted(url)
    await rig.outcome(job_id)
    return job_id


@on_database("postgresql")
async def test_hundred_clients_of_two_apis_make_one_job(
    rig: Rig, store: Store, database_url: str, tmp_path: Path
) -> None:
    apis = Apis(tmp_path, topology=rig.topology, database=database_url)
    async with rig.projector(store), rig.worker(jobs.add), apis, Clients("k") as clients:
        urls = await asyncio.gather(apis.start(rig.url), apis.start(rig.url))
        ids = set(await asyncio.gather(*(clients.until_accepted(urls[n % 2]) for n in range(AT_ONCE))))
        assert len(ids) == len(rows(store)) == 1
        report = await check_jobs(rig, store, ids)
    assert (submissions(rig), report.executions) == (1, 1)


@pytest.mark.parametrize("moment", ["row, publish", "publish, mark"])
@on_database("sqlite")
async def test_killed_api_leaves_one_job(
    rig: Rig, store: Store, database_url: str, tmp_path: Path, moment: str
) -> None:
    """All clients repeat their requests at the other API."""
    apis = Apis(tmp_path, topology=rig.topology, database=database_url)
    async with Proxy(rig.url) as proxy, rig.projector(store), rig.worker(jobs.add), apis, Clients("k") as clients:
        first, second = await asyncio.gather(apis.start(proxy.url), apis.start(rig.url))
        before = await submit_first(rig, first)
        if moment == "row, publish":
            proxy.hold_requests = True
        else:
            proxy.hold_answers = True
        request = [asyncio.create_task(clients.post(first)) for _ in range(AT_ONCE // 2)]
        await eventually(lambda: len(rows(store)) == 2, what="the row is written")
        if moment == "publish, mark":
            await eventually(lambda: submissions(rig) == 2, what="the event is on the tape")
        await apis.kill(first)
        proxy.cut()  # the held messages are lost
        assert all(answer is None or answer.status_code != 202 for answer in await asyncio.gather(*request))
        ((job_id, accepted),) = [row[1:] for row in rows(store) if row[0] == "k"]
        assert not accepted
        assert submissions(rig) == (2 if moment == "publish, mark" else 1)
        ids = set(await asyncio.gather(*(clients.until_accepted(second) for _ in range(AT_ONCE))))
        assert ids == {job_id}
        report = await check_jobs(rig, store, {before, job_id})
    assert (submissions(rig), report.executions) == (2, 2)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_late_publish_of_a_killed_api_makes_no_second_job(
    rig: Rig, store: Store, database_url: str, tmp_path: Path
) -> None:
    """The publish arrives after another API has taken over the key."""
    apis = Apis(tmp_path, topology=rig.topology, database=database_url)
    async with Proxy(rig.url) as proxy, rig.projector(store), rig.worker(jobs.add), apis, Clients("k") as clients:
        first, second = await asyncio.gather(apis.start(proxy.url), apis.start(rig.url))
        before = await submit_first(rig, first)
        proxy.hold_requests = True
        request = asyncio.create_task(clients.post(first))
        await eventually(lambda: len(rows(store)) == 2, what="the row is written")
        ids = {before, await clients.until_accepted(second)}
        await eventually(lambda: submissions(rig) == 2)
        proxy.hold_requests = False
        await eventually(lambda: submissions(rig) > 2, what="the late publish is on the tape")
        await request
        report = await check_jobs(rig, store, ids)
    assert 2 <= report.executions <= submissions(rig)


@on_database("postgresql")
async def test_batch_of_a_killed_api_is_completed_by_another(
    rig: Rig, store: Store, database_url: str, tmp_path: Path
) -> None:
    """Items are published and not marked, or not published. The client repeats the batch until none is unknown."""
    apis = Apis(tmp_path, topology=rig.topology, database=database_url)
    keys = [f"k-{n}" for n in range(BATCH)]
    async with Proxy(rig.url) as proxy, rig.projector(store), rig.worker(jobs.add), apis, Clients("-") as clients:
        first, second = await asyncio.gather(apis.start(proxy.url), apis.start(rig.url))
        before = await submit_first(rig, first)
        proxy.hold_answers = True
        request = asyncio.create_task(clients.batch(first, keys))
        await eventually(lambda: submissions(rig) > 1, what="the first events are on the tape")
        await apis.kill(first)
        proxy.cut()
        assert await request is None
        delivered = {job_id for _, job_id, _ in rows(store)} - {before}
        assert len(delivered) == BATCH

        async def all_accepted() -> set[str] | None:
            found = await clients.batch(second, keys)
            assert found is not None
            assert {item["id"] for item in found["items"]} == delivered, "unknown items have their id too"
            return delivered if found["accepted"] == BATCH else None

        ids = await eventually(all_accepted)
        await check_jobs(rig, store, ids | {before})
    assert submissions(rig) == 1 + BATCH
