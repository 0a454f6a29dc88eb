"""Tests that no confirmed job is lost when the broker is stopped or killed under load, and started again.

Most jobs have gates, which are kept, and none stays closed.
"""

import asyncio

import pytest

from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.faults import jobs
from tests.faults.load import GATES, done, gates_are_open, load, sync_declarations
from tests.faults.scale import SCALE, scaled
from tests.ledger import Ledger
from tests.waiting import eventually, within
from tools.brokers.node import PrivateNode

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180 * max(1.0, SCALE))]

BACK_WITHIN = 10.0  # seconds
AWAY = 3.0 * SCALE


async def progress(rig: Rig, timeout: float = 30) -> None:
    """Wait until further jobs are submitted and done."""
    before = len(done(rig))
    await eventually(lambda: len(done(rig)) > before + 10, timeout, what="jobs are done again")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_no_job_is_lost_when_the_broker_is_killed(node: PrivateNode, node_rig: Rig, store: Store) -> None:
    rig, ledger = node_rig, Ledger()
    async with rig.projector(store) as projector, rig.worker(jobs.add, jobs.nap, concurrency=10) as worker:
        await sync_declarations(node)
        async with load(rig, ledger, gates=GATES):
            for _ in range(scaled(2)):
                await progress(rig)
                await asyncio.to_thread(node.kill)
                await eventually(lambda: rig.link.fault and worker.fault and projector.fault)
                await asyncio.to_thread(node.start)
                with within(BACK_WITHIN):
                    await progress(rig)
        await gates_are_open(rig, store, ledger)
        report = await Checker(rig.url, rig.topology).check(store, ledger)
    assert not report.problems, str(report)
    print(report)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_no_job_is_lost_when_the_broker_is_away(
    node: PrivateNode, node_rig: Rig, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    rig, ledger = node_rig, Ledger()
    async with rig.projector(store) as projector, rig.worker(jobs.add, jobs.nap, concurrency=10) as worker:
        async with load(rig, ledger, gates=GATES):
            await progress(rig)
            await asyncio.to_thread(node.ctl, "stop_app")
            await eventually(lambda: rig.link.fault and worker.fault and projector.fault)
            for part in (worker, projector):
                assert "jobtape:" not in str(part.fault), "no password"
            await asyncio.sleep(AWAY)  # the length of the fault
            await asyncio.to_thread(node.ctl, "start_app")
            with within(BACK_WITHIN):
                await eventually(lambda: worker.fault is None and projector.fault is None)
                await progress(rig)
            assert "tape-missing" not in caplog.text, "a tape that has no leader yet is no gap"
        await gates_are_open(rig, store, ledger)
        report = await Checker(rig.url, rig.topology).check(store, ledger)
    assert not report.problems, str(report)
    print(report)
