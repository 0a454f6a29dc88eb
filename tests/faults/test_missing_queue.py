"""Tests a work queue that is deleted under load, with jobs on it, jobs that are not due yet, and jobs in flight."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from jobtape.broker import declare
from jobtape.cli.doctor.broker import examine_broker
from jobtape.cli.doctor.findings import Findings
from jobtape.schemas.job import JobState
from jobtape.schemas.topology import Topology, work_key
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig, order_event
from tests.faults.repair_jobs import aside, here
from tests.faults.scale import on_database, scaled
from tests.ledger import Ledger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

JOBS = scaled(50)
"""Jobs of each type, of which half are submitted before the queue is missing and half meanwhile."""


@pytest.fixture
def topology(make_topology: MakeTopology) -> Topology:
    """A namespace with the queue ``side``, which the test deletes."""
    return make_topology("default", "side")


async def submit(rig: Rig, ledger: Ledger, n: int, *, delay: float) -> None:
    """Submit ``n`` jobs to each queue, every second one with a delay of up to ``delay`` seconds."""
    for i in range(n):
        for name, queue in (("here", "default"), ("aside", "side")):
            wait = delay * i / n if i % 2 else 0.0
            event = order_event(
                rig.topology, name, queue=queue, run_at=datetime.now(UTC) + timedelta(seconds=wait) if wait else None
            )
            await rig.publisher.publish(event, () if wait else [work_key(queue)])
            ledger.ok.append(event.subject)


def done(store: Store, queue: str) -> int:
    return len(store.list_jobs(JobQuery(states=[JobState.SUCCEEDED], queues=[queue], limit=10_000)))


async def doctor_findings(rig: Rig) -> str:
    """Return what the doctor reports as wrong with the broker."""
    found = Findings()
    await examine_broker(found, await rig.link.connection(), rig.topology)
    return "\n".join(item.what for item in found.items if item.level == "wrong")


@asynccontextmanager
async def without(rig: Rig, queue: str) -> AsyncIterator[None]:
    """Delete the queue, and declare it again at the end."""
    connection = await rig.link.connection()
    channel = await connection.channel()
    async with channel:
        await channel.queue_delete(rig.topology.work_queue(queue).name)
        yield
    await declare.declare(connection, rig.topology)


@on_database("sqlite")
async def test_jobs_of_a_deleted_queue_run_when_it_is_back(rig: Rig, store: Store) -> None:
    ledger = Ledger()
    half = JOBS // 2
    async with rig.projector(store, rescue_after=2.0), rig.worker(here, queues=["default"], concurrency=10):
        await submit(rig, ledger, half, delay=2.0)
        async with without(rig, "side"):
            began = time.monotonic()
            await submit(rig, ledger, half, delay=1.0)
            await eventually(lambda: done(store, "default") == 2 * half, what="the other queue's jobs are done")
            print(f"the jobs of the other queue were done {time.monotonic() - began:.1f} s after the deletion")
            await eventually(lambda: store.open_jobs.earliest_timed() is not None)
            assert "the work queue side is missing" in await doctor_findings(rig)
            assert done(store, "side") == 0
        assert "side is missing" not in await doctor_findings(rig)
        began = time.monotonic()
        async with rig.worker(aside, queues=["side"], concurrency=10):
            await eventually(lambda: done(store, "side") == 2 * half, 60, what="the missing queue's jobs are done")
            print(f"its jobs were done {time.monotonic() - began:.1f} s after the queue was declared again")
            report = await Checker(rig.url, rig.topology).check(store, ledger)
            assert await doctor_findings(rig) == ""
    assert not report.problems, str(report)
    assert report.jobs == 4 * half
    print(report)
