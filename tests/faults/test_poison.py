"""Tests that jobs which kill their worker fail, and that the jobs among them succeed."""

from pathlib import Path

import pytest

from jobtape.schemas.events import Submitted
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig, order_event
from tests.faults.load import all_done
from tests.faults.parts import Parts
from tests.faults.scale import scaled
from tests.ledger import Ledger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

GOOD = scaled(60)
POISON = scaled(2)


async def test_jobs_that_kill_their_worker_fail_and_others_succeed(rig: Rig, sqlite_url: str, tmp_path: Path) -> None:
    """The worker prefetches 14 jobs, and is started again whenever it dies."""
    ledger, log = Ledger(), tmp_path / "parts.log"
    store = Store(sqlite_url)
    store.migrate()
    total = GOOD + POISON
    poison = {order.subject: order for order in (_order(rig, i, poison=True) for i in range(POISON))}
    good = [_order(rig, i, poison=False) for i in range(GOOD)]
    every = total // POISON
    orders = list(good)
    for i, order in enumerate(poison.values()):
        orders.insert(i * every + every // 2, order)
    async with rig.projector(store):
        for order in orders:
            await ledger.submit(rig.publisher, order)
        with Parts(log, rig.topology, url=rig.url, database=sqlite_url) as parts:
            parts.start("worker", "worker")

            def done_and_alive() -> bool:
                for name in parts.ended():
                    parts.kill(name)
                    parts.start("worker", name)
                return {event.subject for event in rig.events if event.name in ("succeeded", "failed")} >= set(
                    ledger.ok
                )

            await eventually(done_and_alive, 120, what="every job has an outcome")
            await all_done(rig, ledger)
            report = await Checker(rig.url, rig.topology).check(store, ledger)
    reasons = {job_id: getattr(store.job(job_id), "reason", "") for job_id in poison}
    store.close()
    assert not report.problems, str(report)
    assert set(reasons.values()) == {"crash_loop"}, reasons
    await rig.read_to_end()
    assert {event.subject for event in rig.events if event.name == "succeeded"} == {order.subject for order in good}
    assert await rig.depth() == 0
    assert await rig.dead() is None
    print(report)


def _order(rig: Rig, n: int, *, poison: bool) -> Submitted:
    name = ("poison", "apoison") if poison else ("good", "agood")
    return order_event(rig.topology, name[n % 2], {} if poison else {"n": n})
