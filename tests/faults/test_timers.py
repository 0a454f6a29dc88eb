"""Tests delayed jobs while projectors are killed or frozen: none early, none lost, each placed once in the view."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from jobtape.schemas.events import Placed, Submitted
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig, order_event
from tests.faults import jobs
from tests.faults.load import all_done, done
from tests.faults.parts import Parts
from tests.faults.scale import on_database, scaled
from tests.ledger import Ledger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

JOBS = scaled(240)
DEATHS = scaled(3)


def due(rig: Rig, seconds: float) -> Submitted:
    run_at = datetime.now(UTC) + timedelta(seconds=seconds)
    return order_event(rig.topology, "add", {"x": 1, "y": 1}, run_at=run_at)


def _reached(rig: Rig, share: int) -> bool:
    return len(done(rig)) >= share


def _active(store: Store) -> str | None:
    """Return the owner of the active projector."""
    checkpoint = store.checkpoint()
    return None if checkpoint is None else checkpoint.owner


@on_database("sqlite")
async def test_due_jobs_are_placed_once_when_the_active_projector_is_killed(
    rig: Rig, store: Store, database_url: str, tmp_path: Path
) -> None:
    """Half of the jobs are due at one moment, the others one after the other."""
    ledger, log = Ledger(), tmp_path / "parts.log"
    events = [due(rig, 3.0 if i % 2 else 1.0 + 7.0 * i / JOBS) for i in range(JOBS)]
    with Parts(log, rig.topology, url=rig.url, database=database_url) as parts:
        for number in ("1", "2"):
            parts.start("projector", f"projector{number}")
        await asyncio.gather(*(ledger.submit(rig.publisher, event) for event in events))
        async with rig.worker(jobs.add, concurrency=20):
            for death in range(1, DEATHS + 1):
                share = JOBS * death // (DEATHS + 1)
                await eventually(partial(_reached, rig, share), 60, what=f"{share} of {JOBS} are done")
                active = await eventually(lambda: _active(store))
                name = active.rpartition("-")[0]
                parts.kill(name)
                parts.start("projector", name)
            await all_done(rig, ledger)
            report = await Checker(rig.url, rig.topology).check(store, ledger)
        assert parts.ended() == [], log.read_text()[-3000:]
    assert not report.problems, str(report)
    accepted = Counter(
        entry.job_id for entry in store.history(limit=100_000) if entry.name == "placed" and entry.accepted
    )
    assert accepted == Counter(ledger.ok)
    await rig.read_to_end()
    times = {event.subject: event.data.order.run_at or event.time for event in events}
    assert all(event.time >= times[event.subject] for event in rig.events if isinstance(event, Placed)), "none is early"
    print(report)


@on_database("postgresql")
async def test_immediate_jobs_run_while_timers_wait_for_a_frozen_projector(
    rig: Rig, store: Store, database_url: str, tmp_path: Path
) -> None:
    ledger = Ledger()
    with Parts(tmp_path / "parts.log", rig.topology, url=rig.url, database=database_url, lease=30.0) as parts:
        parts.start("projector", "projector")
        await eventually(lambda: _active(store))
        parts.freeze("projector")
        late = [due(rig, 0.5) for _ in range(20)]
        async with rig.worker(jobs.add):
            for event in late:
                await ledger.submit(rig.publisher, event)
            now = [order_event(rig.topology, "add", {"x": 1, "y": 1}) for _ in range(20)]
            for event in now:
                await ledger.submit(rig.publisher, event)
            await eventually(lambda: done(rig).issuperset(event.subject for event in now))
            await rig.read_to_end()
            assert not any(event.name == "placed" for event in rig.events)
            parts.thaw("projector")
            await all_done(rig, ledger)
            report = await Checker(rig.url, rig.topology).check(store, ledger)
    assert (report.problems, report.executions, report.repeated) == ([], 40, 0)
