"""Tests a database that is locked or unreachable: the projector reports it, and catches up afterwards. Jobs with gates
wait meanwhile, and run then.
"""

import asyncio
import sqlite3

import pytest

from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.databases import Cluster, install_postgres
from tests.faults import jobs
from tests.faults.load import GATES, all_done, gates_are_open, submit
from tests.ledger import Ledger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_projector_reports_a_locked_sqlite_file(rig: Rig, sqlite_url: str) -> None:
    ledger, gated, checker = Ledger(), Ledger(), Checker(rig.url, rig.topology)
    store = Store(sqlite_url, timeout=0.3)
    async with rig.projector(store, lease=1.0) as projector, rig.worker(jobs.add, jobs.nap):
        await submit(rig, ledger, 20)
        await all_done(rig, ledger)
        assert not (await checker.check(store, ledger)).problems
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        before = store.checkpoint()
        await submit(rig, gated, 3 * len(GATES), gates=[each for each in GATES if each is not None])
        await submit(rig, ledger, 20)
        await all_done(rig, ledger)
        await eventually(lambda: "locked" in (projector.fault or ""), what="the projector reports it")
        after = store.checkpoint()
        assert before is not None
        assert after is not None
        assert (before.offset, before.digest) == (after.offset, after.digest)
        other.execute("ROLLBACK")
        other.close()
        await gates_are_open(rig, store, gated)
        ledger.ok += gated.ok
        report = await checker.check(store, ledger)
        await eventually(lambda: projector.fault is None)
    assert not report.problems, str(report)
    store.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_projector_reports_that_postgresql_is_away(rig: Rig, store: Store, database_url: str) -> None:
    """Connections are cut, also in a transaction, and new ones refused. Workers continue."""
    ledger, gated, checker = Ledger(), Ledger(), Checker(rig.url, rig.topology)
    async with Proxy(database_url) as proxy:
        through = Store(proxy.url, timeout=1.0)
        async with rig.projector(through, lease=1.0) as projector, rig.worker(jobs.add, jobs.nap):
            await submit(rig, ledger, 20)
            for _ in range(3):
                await submit(rig, gated, 3 * len(GATES), gates=[each for each in GATES if each is not None])
                proxy.refuse = True
                proxy.cut(reset=True)
                await submit(rig, ledger, 20)
                await eventually(lambda: "does not answer" in (projector.fault or ""), what="the projector reports it")
                before = store.checkpoint()
                await all_done(rig, ledger)
                after = store.checkpoint()
                assert before is not None
                assert after is not None
                assert before.offset == after.offset
                proxy.refuse = False
                await eventually(lambda: projector.fault is None, what="the projector folds again")
            await gates_are_open(rig, store, gated)
            ledger.ok += gated.ok
            report = await checker.check(store, ledger)
        through.close()
    assert not report.problems, str(report)


async def test_projector_folds_again_what_a_crash_of_postgresql_lost(rig: Rig) -> None:
    """Its commits are not on the disk at once: the newest are lost, each with its checkpoint, and the tape has all."""
    install_postgres()
    cluster = Cluster(durable=True)
    store = Store(cluster.url, timeout=1.0)
    try:
        ledger, gated, checker = Ledger(), Ledger(), Checker(rig.url, rig.topology)
        store.migrate()
        async with rig.projector(store, lease=1.0) as projector, rig.worker(jobs.add, jobs.nap):
            for _ in range(4):
                await submit(rig, gated, 2 * len(GATES), gates=[each for each in GATES if each is not None])
                await submit(rig, ledger, 30)
                folded = store.checkpoint()
                assert folded is not None
                await eventually(lambda: store.checkpoint() != folded, what="the projector folds")  # noqa: B023
                await asyncio.to_thread(cluster.crash)
                await eventually(lambda: projector.fault is None, what="the projector folds again")
            await all_done(rig, ledger)
            await gates_are_open(rig, store, gated)
            ledger.ok += gated.ok
            report = await checker.check(store, ledger)
        assert not report.problems, str(report)
    finally:
        store.close()
        cluster.stop()
