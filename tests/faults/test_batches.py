"""Workers that are killed in the middle of the call of a batch handler."""

from pathlib import Path

import pytest

from jobtape.schemas.events import Succeeded
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig, order_event
from tests.faults.load import all_done
from tests.faults.parts import Parts
from tests.ledger import Ledger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio
JOBS = 40


async def test_jobs_of_killed_batch_have_one_outcome_each(rig: Rig, view: Store, tmp_path: Path) -> None:
    ledger, log = Ledger(), tmp_path / "parts.log"
    calls, hold = tmp_path / "calls", tmp_path / "hold"
    hold.touch()
    events = [order_event(rig.topology, "index", {"folder": str(tmp_path), "n": n}) for n in range(JOBS)]
    sizes: list[int] = []
    with Parts(log, rig.topology, url=rig.url, database=view.url) as parts:
        parts.start("projector", "projector")
        for event in events:
            await ledger.submit(rig.publisher, event)
        for _ in range(2):
            parts.start("worker", "worker")
            await eventually(calls.exists, 60, what="a worker has started, and a call is in its middle")
            parts.kill("worker")
            sizes += _sizes(calls)
            calls.unlink()
        hold.unlink()
        parts.start("worker", "worker")
        await all_done(rig, ledger)
        report = await Checker(rig.url, rig.topology).check(view, ledger)
        assert parts.ended() == [], log.read_text()[-3000:]
    assert not report.problems, str(report)
    ends = {each.subject: await rig.outcome(each.subject) for each in events}
    results = {job_id: end.data.result for job_id, end in ends.items() if isinstance(end, Succeeded)}
    assert results == {each.subject: n for n, each in enumerate(events) if n % 7}
    assert {end.data.reason for job_id, end in ends.items() if job_id not in results} == {"error"}
    assert max(sizes) == 5, "they ran in batches"
    assert sum(sizes) + sum(_sizes(calls)) > JOBS, "what was killed ran again"


def _sizes(calls: Path) -> list[int]:
    """Return how many jobs each call had."""
    return [int(line) for line in calls.read_text().split()]
