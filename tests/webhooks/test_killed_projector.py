"""Projectors that are killed while they submit deliveries."""

from pathlib import Path

import pytest

from jobtape import builtin
from jobtape.schemas.job_types.job_type import WEBHOOK_QUEUE
from jobtape.schemas.webhooks.delivery import WEBHOOK
from jobtape.view.store import Store
from jobtape.webhooks.secrets import new_secret
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.consumer.jobs import add
from tests.faults.jobs import nap
from tests.faults.load import submit
from tests.faults.parts import Parts
from tests.ledger import Ledger
from tests.waiting import eventually
from tests.webhooks.receiver import receiving
from tests.webhooks.test_deliveries import configure, deliveries, ended, endpoint

pytestmark = pytest.mark.anyio
JOBS = 300
KILLS = 5


async def test_each_event_is_one_delivery_although_projectors_are_killed(
    rig: Rig, view: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, view.url)
    ledger, log = Ledger(), tmp_path / "parts.log"
    webhook = builtin.job_types()[WEBHOOK]
    async with (
        receiving() as receiver,
        rig.worker(add, nap, queues=["default"], concurrency=20),
        rig.worker(webhook, queues=[WEBHOOK_QUEUE], concurrency=50),
    ):
        webhook_id = endpoint(view, receiver.url("/204"), new_secret())
        with Parts(log, rig.topology, url=rig.url, database=view.url) as parts:
            for name in ("p0", "p1"):
                parts.start("projector", name)
            await submit(rig, ledger, JOBS)
            for n in range(KILLS):
                share = JOBS * (n + 1) // (KILLS + 1)
                await eventually(lambda: len(receiver.requests) >= share, 60, what=f"{share} are delivered")  # noqa: B023
                parts.kill(f"p{n % 2}")
                parts.start("projector", f"p{n % 2}")
            await eventually(lambda: len(ended(view, webhook_id)) == JOBS, 60)
            found = deliveries(view, webhook_id)
            assert set(found) == set(ledger.ok)
            ledger.ok += [each.id for each in found.values()]
            report = await Checker(rig.url, rig.topology).check(view, ledger)
            assert parts.ended() == [], log.read_text()[-3000:]
    assert not report.problems, str(report)
    assert report.jobs == 2 * JOBS
    # A delivery may be sent twice, when a worker dies. No worker died here, and its work was placed once.
    assert sorted(each.headers["webhook-id"] for each in receiver.requests) == sorted(
        each.id for each in found.values()
    )
