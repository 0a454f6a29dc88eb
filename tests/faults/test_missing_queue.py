"""A work queue is deleted under load, with jobs on it, on the ladder, and on their way."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from jobtape.broker import declare
from jobtape.cli.doctor.broker import examine_broker
from jobtape.cli.doctor.findings import Findings
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.job import JobState
from jobtape.schemas.topology import Topology, run_key
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig, order_event
from tests.faults.repair_jobs import aside, here
from tests.faults.scale import scaled
from tests.ledger import Ledger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

JOBS = scaled(150)
"""Of each kind, half of them before and half of them while the queue is missing."""


@pytest.fixture
def topology(make_topology: MakeTopology) -> Topology:
    """With a queue that will be missing."""
    return make_topology("default", "side")


async def submit(rig: Rig, ledger: Ledger, n: int, *, delay: float) -> None:
    """``n`` jobs for either queue, every second one delayed by up to ``delay`` seconds."""
    for i in range(n):
        for name, queue in (("here", "default"), ("aside", "side")):
            wait = delay * i / n if i % 2 else 0.0
            event = order_event(
                rig.topology, name, queue=queue, run_at=datetime.now(UTC) + timedelta(seconds=wait) if wait else None
            )
            key = delay_key(wait, queue, rig.topology.delay_levels) if wait else run_key(queue)
            await rig.publisher.publish(event, [key])
            ledger.ok.append(event.subject)


def done(store: Store, queue: str) -> int:
    return len(store.list_jobs(JobQuery(states=[JobState.SUCCEEDED], queues=[queue], limit=10_000)))


async def examined(rig: Rig) -> str:
    """What the doctor says is wrong with the broker."""
    found = Findings()
    await examine_broker(found, await rig.link.connection(), rig.topology)
    return "\n".join(item.what for item in found.items if item.level == "wrong")


@asynccontextmanager
async def without(rig: Rig, queue: str) -> AsyncIterator[None]:
    """While the queue is not there."""
    connection = await rig.link.connection()
    channel = await connection.channel()
    async with channel:
        await channel.queue_delete(rig.topology.work_queue(queue).name)
        yield
    await declare.declare(connection, rig.topology)


async def test_others_go_on_and_nothing_stays_lost(rig: Rig, store: Store) -> None:
    ledger = Ledger()
    half = JOBS // 2
    async with rig.projector(store, rescue_after=2.0), rig.worker(here, queues=["default"], concurrency=10):
        await submit(rig, ledger, half, delay=2.0)
        async with without(rig, "side"):
            began = time.monotonic()
            await submit(rig, ledger, half, delay=1.0)
            await eventually(lambda: done(store, "default") == 2 * half, 30, what="the other queue's jobs are done")
            print(f"the other queue was through {time.monotonic() - began:.1f} s after the deletion")
            said = await eventually(lambda: said_unroutable(rig), 30)
            assert "the work queue side is missing" in said
            assert done(store, "side") == 0
        assert "side is missing" not in await examined(rig)
        began = time.monotonic()
        async with rig.worker(aside, queues=["side"], concurrency=10):
            await eventually(lambda: done(store, "side") == 2 * half, 60, what="the missing queue's jobs are done")
            print(f"its jobs were through {time.monotonic() - began:.1f} s after it was there again")
            report = await Checker(rig.url, rig.topology).check(store, ledger)
            assert await examined(rig) == ""
    assert not report.problems, str(report)
    assert report.jobs == 4 * half
    print(report)


async def said_unroutable(rig: Rig) -> str | None:
    """Once work has fallen due for it, that is named too."""
    said = await examined(rig)
    return said if "became due for a missing work queue" in said else None
