"""Tests that a job has one final state when it is cancelled at the moment it ends."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.fold import evolve
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig, order_event
from tests.faults import jobs
from tests.faults.load import all_done
from tests.faults.scale import on_database, scaled
from tests.ledger import Ledger

pytestmark = pytest.mark.anyio

RACES = scaled(250)
AT_ONCE = 20
"""As many as the worker has slots: a job that waited for one would be cancelled before it runs."""


@on_database("sqlite")
async def test_each_cancelled_job_has_one_final_state(rig: Rig, store: Store) -> None:
    """Jobs that take up to 0.25 s are cancelled at random moments: while they wait, run or end, or afterwards."""
    ledger, chance = Ledger(), random.Random(4)
    slots = asyncio.Semaphore(AT_ONCE)

    async def race() -> None:
        seconds = chance.choice([0.0, chance.uniform(0.05, 0.25), chance.uniform(0.05, 0.25)])
        event = order_event(rig.topology, *(("nap", {"seconds": seconds}) if seconds else ("add", {"x": 1, "y": 1})))
        moment = chance.uniform(0, seconds + 0.2)
        async with slots:
            await ledger.submit(rig.publisher, event)
            await asyncio.sleep(moment)  # the moment of the race
            cancelling = cancelled(evolve(None, event), source=rig.topology.source, time=datetime.now(UTC))
            await rig.publisher.publish(cancelling, [CANCEL_KEY])

    async with rig.projector(store), rig.worker(jobs.add, jobs.nap, concurrency=AT_ONCE):
        await asyncio.gather(*(race() for _ in range(RACES)))
        await all_done(rig, ledger)
        report = await Checker(rig.url, rig.topology).check(store, ledger)
    assert not report.problems, str(report)
    states = Counter(store.job(job_id).state.value for job_id in ledger.ok)  # type: ignore[union-attr]
    print(states, report)
    assert set(states) == {"succeeded", "cancelled"}, "some jobs were cancelled, and some succeeded"
    assert sum(states.values()) == report.jobs == RACES
    assert await rig.depth() == 0
