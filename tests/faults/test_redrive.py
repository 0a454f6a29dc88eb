"""Tests that two bulk jobs redrive the same failed jobs at once."""

import asyncio
import time

import pytest

from jobtape.consumer.replays.bulk import REDRIVE, Bulk, run_bulk
from jobtape.consumer.replays.long_task import TaskSlice
from jobtape.schemas.events import Placed, Redriven
from jobtape.schemas.filters.job_filter import RedriveRequest
from jobtape.schemas.job import JobState
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.faults.repair_jobs import second_time
from tests.faults.scale import on_database, scaled
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

JOBS = scaled(50)


def count(store: Store, state: JobState, run: int) -> int:
    return sum(job.run == run for job in store.list_jobs(JobQuery(states=[state], limit=10_000)))


@on_database("postgresql")
async def test_two_redrives_at_once_give_each_job_one_new_run(rig: Rig, store: Store) -> None:
    query = JobQuery.of(RedriveRequest(), 10_000)
    part = TaskSlice(lambda fraction, words: None, time.monotonic() + 60, "jobs")
    async with rig.projector(store):
        async with rig.worker(second_time, concurrency=10):
            ids = [await rig.submit("second-time", max_attempts=1) for _ in range(JOBS)]
            await eventually(lambda: count(store, JobState.FAILED, 1) == JOBS, 60)
            bulks = [Bulk(f"b/{n}", REDRIVE, query, None) for n in range(2)]
            done = await asyncio.gather(*(run_bulk(rig.url, rig.topology, store, bulk, part) for bulk in bulks))
            await eventually(lambda: count(store, JobState.SUCCEEDED, 2) == JOBS, 60)
        report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    assert max(each["matched"] for each in done) == JOBS
    for each in done:
        assert each["accepted"] == each["matched"]
    await rig.read_to_end()
    for job_id in ids:
        assert sorted(set(rig.steps(job_id))) == ["failed", "placed", "redriven", "submitted", "succeeded"]
        assert {event.data.run for event in rig.of(job_id) if isinstance(event, Redriven)} == {2}
        assert [event.data.n for event in rig.of(job_id) if isinstance(event, Placed)] == [1]
    assert report.executions == 2 * JOBS + report.repeated
    assert await rig.depth() == 0
    print(f"{[each['accepted'] for each in done]} redriven at once: {report}")
