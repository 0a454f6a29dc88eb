"""Tests that no job is lost when worker and projector processes are killed or frozen, on both databases."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from jobtape.schemas.events.interventions import released
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.queueing.gates import Gates
from jobtape.schemas.rules.rules import LIMIT, PAUSE
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig, order_event
from tests.faults.load import GATES, all_done, done, gates_are_open, submit
from tests.faults.parts import Parts
from tests.faults.scale import SCALE, on_database, scaled
from tests.ledger import Ledger
from tests.schedules import end, put, put_rule, tick_jobs
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180 * max(1.0, SCALE))]

JOBS = scaled(400)
DEATHS = scaled(2)


@on_database("postgresql")
async def test_no_job_is_lost_when_workers_and_projectors_are_killed(
    rig: Rig, store: Store, database_url: str, tmp_path: Path
) -> None:
    """Each of two workers and two projectors is killed when a share of the jobs is done, and replaced. Jobs with gates
    are placed in order and within their limits all the same, those with a unique key run or have a cause why not, and
    each tick of a schedule has one job. A pause, a lowered limit and a failed job that holds its key survive too.
    """
    ledger, log = Ledger(), tmp_path / "parts.log"
    with Parts(log, rig.topology, url=rig.url, database=database_url) as parts:
        for part in ("worker", "projector"):
            for number in ("1", "2"):
                parts.start(part, part + number)
        rule = await put(rig, "steady", every=1.0, catch_up="all", overlap="queue")
        await submit(rig, ledger, JOBS, gates=GATES)
        failing = await _submit_behind_failure(rig, ledger)
        rules = [await put_rule(rig, LIMIT, {"name": "few", "at_most": 5})]
        assert not ledger.unknown, "the broker answers all the time"
        for death in range(1, DEATHS + 1):
            share = JOBS * death // (DEATHS + 1)
            await eventually(partial(_reached, rig, share), 60, what=f"{share} of {JOBS} are done")
            for part in ("worker", "projector"):
                name = f"{part}{1 + death % 2}"
                parts.kill(name)
                parts.start(part, name)
            if death == 2:
                pause = await put_rule(rig, PAUSE, {"type": "nap"})
                rules.append(pause)
                await eventually(partial(store.job, pause.subject), 60, what="the pause is folded")
                await end(rig, pause)
        failed = await eventually(lambda: _failed(store, failing))
        behind = ledger.ok[-3:]
        await eventually(lambda: [rig.names(each) for each in behind] == [["submitted"]] * 3, what="they only wait")
        await rig.publisher.publish(released(failed, source=rig.topology.source, time=datetime.now(UTC)))
        await gates_are_open(rig, store, ledger)
        await end(rig, rules[0])
        await end(rig, rule)
        await eventually(
            lambda: (job := store.job(rule.subject)) is not None and job.final, what="no tick comes any more"
        )
        await rig.read_to_end()
        await eventually(lambda: done(rig).issuperset({rule.subject, *tick_jobs(rig, "steady")}))
        steady = tick_jobs(rig, "steady")
        ledger.ok += [rule.subject, *steady, *(each.subject for each in rules)]
        report = await Checker(rig.url, rig.topology).check(store, ledger)
        assert parts.ended() == [], log.read_text()[-3000:]
    assert not report.problems, str(report)
    assert len(ledger.ok) == report.jobs == JOBS + 4 + len(GATES) + 1 + len(steady) + len(rules)
    moments = list(steady.values())
    assert moments == [moments[0] + timedelta(seconds=n) for n in range(len(moments))]
    ended_rules = {rule.subject, *(each.subject for each in rules)}
    await rig.read_to_end()
    duplicates = {event.subject for event in rig.events if event.name == "cancelled"} - ended_rules
    assert 0 < len(duplicates) < JOBS * 3 / len(GATES) + 2
    assert report.executions >= JOBS - len(duplicates)
    assert await rig.depth() == 0
    print(report)


async def _submit_behind_failure(rig: Rig, ledger: Ledger) -> str:
    """Submit a job that fails and holds its key, and three that wait for the key. Returns the id of the first."""
    hold = Gates(ordering_key="held", hold=True)
    first = order_event(rig.topology, "refuse", gates=hold)
    for event in (first, *(order_event(rig.topology, "add", {"x": 1, "y": 1}, gates=hold) for _ in range(3))):
        assert await ledger.submit(rig.publisher, event)
    return first.subject


def _failed(store: Store, job_id: str) -> Job | None:
    job = store.job(job_id)
    return job if job is not None and job.state is JobState.FAILED and job.has_slots else None


def _reached(rig: Rig, share: int) -> bool:
    return len(done(rig)) >= share


@on_database("sqlite")
async def test_late_outcomes_of_a_frozen_worker_change_nothing(
    rig: Rig, store: Store, sqlite_url: str, tmp_path: Path
) -> None:
    """Another worker executes its jobs meanwhile."""
    ledger = Ledger()
    log = tmp_path / "parts.log"
    async with rig.projector(store):
        with Parts(log, rig.topology, url=rig.url, database=sqlite_url, heartbeat=1) as parts:
            parts.start("worker", "first")
            await submit(rig, ledger, 40, seconds=1.0)
            await eventually(lambda: any(event.name == "started" for event in rig.events))
            parts.freeze("first")
            parts.start("worker", "second")
            await all_done(rig, ledger)
            finished = len(rig.events)
            parts.thaw("first")
            await eventually(lambda: len(rig.events) > finished, what="the frozen worker publishes its outcome")
            report = await Checker(rig.url, rig.topology).check(store, ledger)
    assert not report.problems, str(report)
    assert report.repeated > 0
