"""Jobs that are wanted at the same time are read together, and no read is older than the wish."""

import asyncio
from collections.abc import Collection

import psycopg
import pytest

from jobtape.producer.service.view_calls import JobReader, ViewCalls
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.job import Job, JobState
from jobtape.view.store import Store
from tests.view.samples import begin, job_id, postgresql_only, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@postgresql_only
async def test_jobs_wanted_during_a_read_are_read_together_after_it(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store)
    record(store, *(submitted(n) for n in range(9)))
    reads = ViewCalls("test", threads=2, limit=10)
    reader = JobReader(store, reads)
    groups: list[Collection[str]] = []
    real = store.awaited.jobs

    async def jobs(job_ids: Collection[str]) -> dict[str, Job]:
        groups.append(job_ids)
        return await real(job_ids)

    monkeypatch.setattr(store.awaited, "jobs", jobs)
    with psycopg.connect(database_url) as locks:
        locks.execute("LOCK TABLE jobs")
        first = asyncio.create_task(reader.job(job_id(0)))
        await eventually(lambda: groups)
        others = [asyncio.create_task(reader.job(job_id(n))) for n in (*range(20), 1)]
        await asyncio.sleep(0)
        others[1].cancel()
        locks.rollback()
        await asyncio.wait(others)
    assert await first is not None
    assert others[1].cancelled()
    found = [task.result() for n, task in enumerate(others) if n != 1]
    assert [None if job is None else job.id for job in found] == [
        *(job_id(n) if n < 9 else None for n in range(20) if n != 1),
        job_id(1),
    ]
    assert [len(group) for group in groups] == [1, 20]
    await reads.close()


@postgresql_only
async def test_failed_read_is_raised_by_all_callers_and_the_next_one_works(store: Store, database_url: str) -> None:
    begin(store)
    record(store, submitted(1), succeeded(submitted(1)))
    reads = ViewCalls("test", threads=2, limit=10)
    reader = JobReader(store, reads)
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("ALTER TABLE jobs RENAME TO away")
        results = await asyncio.gather(*(reader.job(job_id(1)) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in results] == [ViewUnavailable] * 3
        admin.execute("ALTER TABLE away RENAME TO jobs")
    job = await reader.job(job_id(1))
    assert job is not None and job.state is JobState.SUCCEEDED
    await reads.close()
