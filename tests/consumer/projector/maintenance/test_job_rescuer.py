"""The job rescuer places lost work again, and nothing that still waits. On both databases."""

import asyncio

import aio_pika
import pytest

from jobtape.consumer.projector.maintenance.job_rescuer import QueueChecks
from jobtape.schemas.events import Placed
from jobtape.schemas.job import JobState
from jobtape.view.store import Checkpoint, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.consumer.projector.maintenance.test_dead_letters import state_is
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def moment(now: float) -> Checkpoint:
    return Checkpoint(1, round(now * 10), None, None, 0.0, None, read_at=now)


def test_checks_report_work_as_lost_after_two_empty_checks() -> None:
    checks = QueueChecks(100)
    assert checks.add(moment(0), True) is None
    assert checks.add(moment(99), True) is None
    assert checks.add(moment(101), True) == moment(0)
    assert checks.add(moment(102), False) is None, "no work is lost while some waits"
    assert checks.add(moment(103), True) is None, "a single check may be wrong"
    assert checks.add(moment(104), True) == moment(0)
    assert checks.add(moment(203), True) == moment(99), "the latest moment that is long enough ago"


def test_checks_report_nothing_while_a_backlog_lasts() -> None:
    checks = QueueChecks(100)
    assert [checks.add(moment(now), False) for now in range(0, 10_000, 10)] == [None] * 1000


def test_checks_keep_few_moments_and_accept_a_clock_set_back() -> None:
    checks = QueueChecks(100)
    for now in range(5000):
        checks.add(moment(now), True)
    assert len(checks._moments) <= 22
    assert checks.add(moment(10), True) is None
    assert checks.add(moment(111), True) == moment(10)


async def test_rescuer_places_purged_work_again_once(rig: Rig, store: Store) -> None:
    async with rig.projector(store, rescue_after=1.0):
        lost = [await rig.submit("add", {"x": n, "y": 1}) for n in range(5)]
        await eventually(rig.depth_is(5))
        # Otherwise it may place the first ones again before it knows the others, whose queue is not empty then.
        await eventually(lambda: len(store.jobs(lost)) == 5, what="all are in the view")
        channel = await (await rig.link.connection()).channel()
        queue = await channel.get_queue(rig.topology.work_queue("default").name, ensure=False)
        await queue.purge()
        await eventually(rig.depth_is(5), what="all work is on the queue again")
        for _ in range(10):  # waiting work is not lost, however long it waits
            await asyncio.sleep(0.2)
            assert await rig.depth() == 5
        async with rig.worker(jobs.add):
            for job_id in lost:
                await eventually(state_is(store, job_id, JobState.SUCCEEDED))
        report = await Checker(rig.url, rig.topology).check(store)
        await channel.close()
    assert (report.problems, report.executions, report.repeated) == ([], 5, 0)
    await rig.read_to_end()
    assert all(rig.names(job_id).count("placed") == 1 for job_id in lost)


async def test_rescuer_continues_when_one_queue_does_not_answer(rig: Rig, store: Store) -> None:
    """A queue may have no leader for days. An exclusive queue of another connection fails in the same way."""
    async with await aio_pika.connect(rig.url) as other:
        channel = await other.channel()
        name = rig.topology.work_queue("locked").name
        await channel.declare_queue(name, exclusive=True)
        async with rig.projector(store, rescue_after=1.0):
            await rig.publisher.publish(order_event(rig.topology, "add", {"x": 1, "y": 1}, queue="locked"))
            await rig.publisher.publish(order_event(rig.topology, "add", {"x": 1, "y": 1}))
            await eventually(rig.depth_is(1), what="the lost work of the other queue is placed again")


async def test_rescuer_fails_a_job_that_was_lost_three_times(rig: Rig, store: Store) -> None:
    async with rig.projector(store, rescue_after=1.0):
        job_id = await rig.submit("add", {"x": 1, "y": 1})
        channel = await (await rig.link.connection()).channel()
        queue = await channel.get_queue(rig.topology.work_queue("default").name, ensure=False)

        async def purged() -> bool:
            await queue.purge()
            job = await asyncio.to_thread(store.job, job_id)
            return job is not None and job.final

        await eventually(purged, what="the job has failed")
        await channel.close()
    job = store.job(job_id)
    assert job is not None
    assert (job.state, job.reason) == (JobState.FAILED, "lost")
    await rig.read_to_end()
    assert [event.data.n for event in rig.of(job_id) if isinstance(event, Placed)] == [2, 3, 4]
