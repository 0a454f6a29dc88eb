"""The rules in force are published to the tape again, so that its last month says which there are."""

import time
from datetime import UTC, datetime

import pytest

from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.consumer.projector.maintenance import rule_repeater
from jobtape.schemas.events import JobEvent, Submitted
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.fold import evolve, fold
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.rules.rules import LIMIT, PAUSE
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.schedules import end, put, put_rule
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def in_force(events: list[JobEvent]) -> dict[str, Job]:
    """Return the rules that the end of a tape says are in force, without what depends on the position."""
    jobs = fold((event, 1) for event in events)
    return {each.id: each for each in jobs.values() if each.state is JobState.HELD}


async def test_last_month_of_the_tape_has_all_rules_in_force(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that somebody ends in the very moment in which it is published again is over."""
    async with rig.projector(store):
        kept = {
            (await put(rig, "nightly", cron="30 2 * * *", tz="Europe/Berlin")).subject,
            (await put_rule(rig, PAUSE, {"queue": "mail"})).subject,
            (await put_rule(rig, LIMIT, {"name": "mail", "at_most": 2})).subject,
        }
        await end(rig, await put(rig, "over", every=3600))
        ending = await put(rig, "ending", every=3600)
        await eventually(lambda: len(store.open_jobs.rules()) == 4)
    view = store.jobs([*kept])
    weeks_ago = time.time() - 8 * 86_400
    store.rates.note({rule_repeater.NOTE: weeks_ago})
    await rig.read_to_end()
    month = len(rig.events)
    publish = ActiveProjector.publish

    async def publish_later(active: ActiveProjector, event: JobEvent, *args: object) -> None:
        if isinstance(event, Submitted) and event.subject == ending.subject:
            now = cancelled(evolve(None, ending), source=rig.topology.source, time=datetime.now(UTC))
            await rig.publisher.publish(now, [CANCEL_KEY])
        await publish(active, event, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ActiveProjector, "publish", publish_later)
    async with rig.projector(store, owner="p2"):
        await eventually(lambda: (store.rates.latest_of(rule_repeater.NOTE) or 0) > weeks_ago + 1)
        await eventually(lambda: rig.names(ending.subject).count("cancelled") == 2)
        await rig.read_to_end()
        later = rig.events[month:]
        assert [event.name for event in later if event.subject == ending.subject] == [
            *("cancelled", "submitted", "cancelled")
        ]
        later.remove(next(event for event in later if event.name == "cancelled"))  # one month later it is gone
        found = in_force(later)
        assert found.keys() == kept
        for job_id, each in found.items():
            assert (each.submitted_at, each.order) == (view[job_id].submitted_at, view[job_id].order)
        assert {job_id for job_id, _, _ in store.open_jobs.rules()} == kept
        report = await Checker(rig.url, rig.topology).check(store)
    assert {*report.problems} == {f"stuck: {job_id} is held" for job_id in kept}, "view and tape agree"
    await rig.read_to_end()
    before = len(rig.events)
    async with rig.projector(store, owner="p3"):
        await eventually(lambda: _is_active(store, "p3"))
        last = await rig.submit("add", {"x": 1, "y": 2})
        await eventually(lambda: store.job(last))
        await rig.read_to_end()
        assert [event.subject for event in rig.events[before:]] == [last], "not before a week is over"


def _is_active(store: Store, owner: str) -> bool:
    checkpoint = store.checkpoint()
    return checkpoint is not None and checkpoint.owner == owner
