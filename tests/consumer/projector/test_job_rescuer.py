"""Lost jobs are put back, and none that waits is taken for lost. On both databases."""

import asyncio
from datetime import UTC, datetime, timedelta

import aio_pika
import pytest

from jobtape.broker import declare
from jobtape.consumer.projector.maintenance.job_rescuer import QueueChecks
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.events import Requeued
from jobtape.schemas.job import JobState
from jobtape.view.store import OpenJobsMoment, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.consumer.projector.test_dead_letters import state_is
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def moment(now: float) -> OpenJobsMoment:
    return OpenJobsMoment(now, 1, round(now * 10))


def test_empty_long_ago_now_and_just_before() -> None:
    looks = QueueChecks(100)
    assert looks.note(moment(0), True) is None
    assert looks.note(moment(99), True) is None
    assert looks.note(moment(101), True) == moment(0)
    assert looks.note(moment(102), False) is None, "where work waits, none is lost"
    assert looks.note(moment(103), True) is None, "one look may be mistaken"
    assert looks.note(moment(104), True) == moment(0)
    assert looks.note(moment(203), True) == moment(99), "the latest that is long enough ago"


def test_a_backlog_that_never_ends_makes_no_job_lost() -> None:
    looks = QueueChecks(100)
    assert [looks.note(moment(now), False) for now in range(0, 10_000, 10)] == [None] * 1000


def test_it_remembers_little_and_survives_a_clock_that_is_set_back() -> None:
    looks = QueueChecks(100)
    for now in range(5000):
        looks.note(moment(now), True)
    assert len(looks._marks) <= 22
    assert looks.note(moment(10), True) is None
    assert looks.note(moment(111), True) == moment(10)


async def test_work_that_disappeared_is_put_back(rig: Rig, store: Store) -> None:
    async with rig.projector(store, rescue_after=1.0):
        lost = [await rig.submit("add", {"x": n, "y": 1}) for n in range(5)]
        await eventually(rig.depth_is(5))
        channel = await (await rig.link.connection()).channel()
        queue = await channel.get_queue(rig.topology.work_queue("default").name, ensure=False)
        await queue.purge()
        await eventually(rig.depth_is(5), what="all are on their queue again")
        for _ in range(10):  # what waits is not lost, however long
            await asyncio.sleep(0.2)
            assert await rig.depth() == 5
        async with rig.worker(jobs.add):
            for job_id in lost:
                await eventually(state_is(store, job_id, JobState.SUCCEEDED))
        report = await Checker(rig.url, rig.topology).check(store)
        await channel.close()
    assert (report.problems, report.executions, report.repeated) == ([], 5, 0)
    assert all(rig.names(job_id).count("requeued") == 1 for job_id in lost)


async def test_a_queue_that_cannot_be_looked_at_holds_up_no_other(rig: Rig, store: Store) -> None:
    """It may have no leader for days. Here somebody else's connection has it for itself, which looks the same."""
    async with await aio_pika.connect(rig.url) as other:
        channel = await other.channel()
        name = rig.topology.work_queue("locked").name
        await channel.declare_queue(name, exclusive=True)
        async with rig.projector(store, rescue_after=1.0):
            await rig.publisher.publish(order_event(rig.topology, "add", {"x": 1, "y": 1}, queue="locked"))
            await rig.publisher.publish(order_event(rig.topology, "add", {"x": 1, "y": 1}))
            await eventually(rig.depth_is(1), what="the other queue's lost job is put back")


async def test_three_times_and_then_it_has_failed(rig: Rig, store: Store) -> None:
    async with rig.projector(store, rescue_after=1.0):
        job_id = await rig.submit("add", {"x": 1, "y": 1})
        channel = await (await rig.link.connection()).channel()
        queue = await channel.get_queue(rig.topology.work_queue("default").name, ensure=False)

        async def purged() -> bool:
            await queue.purge()
            job = await asyncio.to_thread(store.job, job_id)
            return job is not None and job.final

        await eventually(purged, 40, what="it is given up")
        await channel.close()
    job = store.job(job_id)
    assert job is not None
    assert (job.state, job.reason) == (JobState.FAILED, "lost")
    assert [event.data.n for event in rig.of(job_id) if isinstance(event, Requeued)] == [2, 3, 4]


async def test_work_whose_queue_was_missing_when_it_fell_due_comes_to_it_later(rig: Rig, store: Store) -> None:
    connection = await rig.link.connection()
    channel = await connection.channel()
    await channel.queue_delete(rig.topology.work_queue("default").name)
    event = order_event(rig.topology, "add", {"x": 1, "y": 2}, run_at=datetime.now(UTC) + timedelta(seconds=0.2))
    await rig.publisher.publish(event, [delay_key(0.2, "default", rig.topology.delay_levels)])
    unroutable = rig.topology.unroutable_queue.name

    async def waits_there() -> bool:
        found = await declare.depth(connection, unroutable)
        return found is not None and found.messages == 1

    await eventually(waits_there)
    async with rig.projector(store, rescue_after=2.0):
        await asyncio.sleep(1)  # it is taken up and put back a few times
        await eventually(waits_there)
        await declare.declare(connection, rig.topology)
        async with rig.worker(jobs.add):
            await eventually(state_is(store, event.subject, JobState.SUCCEEDED))
    assert rig.names(event.subject) == ["submitted", "succeeded"], "it was not lost"
    await eventually(rig.nothing_on(unroutable))
    await channel.close()
