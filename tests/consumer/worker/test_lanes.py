"""Workers begin the jobs of lanes by weights: the high lane overtakes, and the low one does not starve."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from jobtape import RetryPolicy, job
from jobtape.broker import declare
from jobtape.schemas.events import Placed, Submitted
from jobtape.schemas.events.interventions import redriven
from jobtape.schemas.queueing.gates import Gates
from jobtape.schemas.queueing.lanes import LANES, lane_of, lane_queue, lanes_of
from jobtape.view.store import Store
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@job("step", lane="normal")
async def step() -> None:
    await asyncio.sleep(0.02)  # longer than the broker takes to deliver the next one


@job("boom", lane="high", retry=RetryPolicy(max_attempts=2, first=0.1))
async def boom() -> None:
    raise ValueError("boom")


@pytest.fixture
async def laned(rig: Rig) -> Rig:
    """The installation with the lanes of its queue."""
    await declare.declare(await rig.link.connection(), rig.topology.with_queues(lanes_of("default")))
    return rig


async def submit(rig: Rig, queue: str, n: int) -> list[str]:
    return list(await asyncio.gather(*(rig.submit("step", queue=queue) for _ in range(n))))


def ended_lanes(rig: Rig) -> list[str]:
    """Return the lanes of the jobs that have ended, in the order of the tape."""
    queues = {event.subject: event.data.order.queue for event in rig.events if isinstance(event, Submitted)}
    return [lane_of(queues[event.subject]) for event in rig.events if event.name == "succeeded"]


async def test_waiting_lanes_are_begun_by_their_weights(laned: Rig) -> None:
    for lane in LANES:
        await submit(laned, lane_queue("default", lane), 60)
    async with laned.worker(step, queues=lanes_of("default")):
        await eventually(lambda: len(ended_lanes(laned)) == 180, 60)
    first = Counter(ended_lanes(laned)[:60])
    assert first["high"] >= 28  # 36
    assert 10 <= first["normal"] <= 26  # 18
    assert first["low"] >= 3  # 6
    order = ended_lanes(laned)
    assert order.index("low") < 30, "the low lane is served while others wait"


async def test_low_lane_takes_no_more_than_its_part_of_many_slots(laned: Rig) -> None:
    """Although outcomes are confirmed, and deliveries come, more slowly than jobs run."""
    for lane in ("low", "high"):
        await submit(laned, f"default.{lane}", 500)
    async with laned.worker(step, queues=lanes_of("default"), concurrency=40):
        await eventually(lambda: len(ended_lanes(laned)) >= 400, 60)
    first = Counter(ended_lanes(laned)[:400])
    assert 20 <= first["low"] <= 115  # 57


async def test_high_lane_overtakes_what_waits_in_the_low_one(laned: Rig) -> None:
    low, high = lane_queue("default", "low"), lane_queue("default", "high")
    await submit(laned, low, 300)
    async with laned.worker(step, queues=lanes_of("default")):
        await eventually(lambda: len(ended_lanes(laned)) > 20)
        ids = set(await submit(laned, high, 40))
        await eventually(lambda: ended_lanes(laned).count("high") == 40)
        names = [(event.name, event.subject in ids) for event in laned.events]
        last_submitted = max(i for i, found in enumerate(names) if found == ("submitted", True))
        last_ended = max(i for i, found in enumerate(names) if found == ("succeeded", True))
        overtaken = names[last_submitted:last_ended].count(("succeeded", False))
        assert overtaken < 30
        await eventually(lambda: len(ended_lanes(laned)) == 340, 60)


async def test_job_keeps_its_lane_when_its_work_is_placed_again(laned: Rig, store: Store) -> None:
    """When it is due, at a retry, after a redrive, and when a gate opens."""
    queue = lane_queue("default", "high")
    later = datetime.now(UTC) + timedelta(seconds=0.2)
    events = [
        order_event(laned.topology, "boom", queue=queue, max_attempts=2, run_at=later),
        order_event(laned.topology, "boom", queue=queue, gates=Gates(ordering_key="a")),
    ]
    async with laned.projector(store), laned.worker(boom, queues=[queue]):
        for event in events:
            await laned.publisher.publish(event)
        ids = [event.subject for event in events]
        await eventually(lambda: all("failed" in laned.names(job_id) for job_id in ids))
        await eventually(lambda: all(each.final for each in store.jobs(ids).values()))
        failed = store.jobs(ids)[ids[0]]
        assert failed.lane == "high"
        await laned.publisher.publish(redriven(failed, source=laned.topology.source, time=datetime.now(UTC)))
        await eventually(lambda: laned.names(ids[0]).count("failed") == 2)
    placed = [event.data.order.queue for event in laned.events if isinstance(event, Placed)]
    assert len(placed) >= 4
    assert set(placed) == {queue}
