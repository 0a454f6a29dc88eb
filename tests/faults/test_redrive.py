"""Tests that two producers redrive the same failed jobs at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from jobtape.producer.producer import Producer
from jobtape.producer.service.redrive import Redrives, redrive_many
from jobtape.schemas.events import Placed, Redriven
from jobtape.schemas.job import JobState
from jobtape.settings import read_settings
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.faults.repair_jobs import second_time
from tests.faults.scale import scaled
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

JOBS = scaled(50)


@pytest.fixture
async def producers(rig: Rig, store: Store) -> AsyncIterator[list[Producer]]:
    """Two producers on one view."""
    limits = read_settings(read_timeout=20).limits
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Producer(rig.url, rig.topology, store, {"second-time": second_time}, limits)
            )
            for _ in range(2)
        ]


def count(store: Store, state: JobState, run: int) -> int:
    return sum(job.run == run for job in store.list_jobs(JobQuery(states=[state], limit=10_000)))


async def test_two_redrives_at_once_give_each_job_one_new_run(
    rig: Rig, store: Store, producers: list[Producer]
) -> None:
    failed = JobQuery(states=[JobState.FAILED], limit=10_001)
    async with rig.projector(store):
        async with rig.worker(second_time, concurrency=10):
            ids = [await rig.submit("second-time", max_attempts=1) for _ in range(JOBS)]
            await eventually(lambda: count(store, JobState.FAILED, 1) == JOBS, 60)
            events = len(rig.events)
            dry: list[Redrives] = [await redrive_many(producer, failed, dry_run=True) for producer in producers]
            assert [each.matched for each in dry] == [JOBS, JOBS]
            assert (len(rig.events), count(store, JobState.FAILED, 1)) == (events, JOBS), "a dry run changes nothing"
            done = await asyncio.gather(*(redrive_many(producer, failed) for producer in producers))
            await eventually(lambda: count(store, JobState.SUCCEEDED, 2) == JOBS, 60)
        report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    assert max(each.matched for each in done) == JOBS
    for each in done:
        assert (each.accepted, each.refused, each.unknown) == (each.matched, 0, 0)
    for job_id in ids:
        names = [event.name for event in rig.of(job_id) if event.name != "started"]
        assert sorted(set(names)) == ["failed", "placed", "redriven", "submitted", "succeeded"]
        assert {event.data.run for event in rig.of(job_id) if isinstance(event, Redriven)} == {2}
        assert [event.data.n for event in rig.of(job_id) if isinstance(event, Placed)] == [1]
    assert report.executions == 2 * JOBS + report.repeated
    assert await rig.depth() == 0
    print(f"{[each.accepted for each in done]} redriven at once: {report}")
