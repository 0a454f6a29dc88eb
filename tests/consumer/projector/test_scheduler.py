"""Schedules submit one job at each tick, whichever projector is active, and however often it is killed."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from jobtape.consumer.projector.maintenance import scheduler
from jobtape.schemas.events import Submitted
from jobtape.schemas.job import JobState, Order
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig
from tests.schedules import end, put, ticks
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_each_tick_has_one_job_while_projectors_stop(rig: Rig, store: Store) -> None:
    async with rig.worker(jobs.add):
        rules: list[Submitted] = []
        for n in range(3):
            async with rig.projector(store, owner=f"p{n}", lease=1.0):
                if not rules:
                    rules = [await put(rig, f"s{i}", every=1.0 + i, catch_up="all", overlap="queue") for i in range(3)]
                seen = len(ticks(rig, "s0"))
                await eventually(lambda seen=seen: len(ticks(rig, "s0")) >= seen + 2)  # type: ignore[misc]
        async with rig.projector(store, owner="last", lease=1.0):
            for rule in rules:
                await end(rig, rule)
            for i in range(3):
                found = ticks(rig, f"s{i}")
                assert found == [found[0] + timedelta(seconds=(1.0 + i) * n) for n in range(len(found))]
            ended = JobQuery(labels=(("schedule", "s0"),), states=(JobState.SUCCEEDED,))
            await eventually(lambda: len(store.list_jobs(ended)) == len(ticks(rig, "s0")))
            report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    assert report.repeated == 0


async def test_tick_is_skipped_while_the_job_of_an_earlier_one_is_open(rig: Rig, view: Store) -> None:
    nap = Order(type="nobody", payload={}, queue="default", timeout=30)
    async with rig.projector(view):
        await put(rig, "slow", nap, every=1.0)
        skipped = JobQuery(labels=(("schedule", "slow"), ("skipped", "overlap")), states=(JobState.CANCELLED,))
        await eventually(lambda: view.list_jobs(skipped))
        open_jobs = [each for each in view.list_jobs(JobQuery(labels=(("schedule", "slow"),))) if not each.final]
        assert len(open_jobs) == 1


async def test_queued_ticks_run_one_after_the_other(rig: Rig, view: Store) -> None:
    nap = Order(type="nobody", payload={}, queue="default", timeout=30)
    async with rig.projector(view):
        await put(rig, "slow", nap, every=1.0, overlap="queue")
        query = JobQuery(labels=(("schedule", "slow"),))
        await eventually(lambda: len(view.list_jobs(query)) == 3)
        assert sorted(each.state for each in view.list_jobs(query)) == ["held", "held", "queued"]


async def test_missed_ticks_are_submitted_by_the_policy(rig: Rig, view: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was submitted for an hour: the clock of the projector that becomes active is an hour later."""
    async with rig.projector(view):
        for policy in ("last", "none", "all"):
            await put(rig, policy, every=600.0, catch_up=policy)
        await eventually(lambda: len(view.open_jobs.rules()) == 3)

    class Clock:
        @staticmethod
        def now(zone: Any) -> datetime:
            return datetime.now(zone) + timedelta(hours=1)

    monkeypatch.setattr(scheduler, "datetime", Clock)
    async with rig.projector(view):
        await eventually(lambda: len(ticks(rig, "all")) >= 6)
        await eventually(lambda: len(ticks(rig, "last")) >= 1)
    assert len(ticks(rig, "all")) == 6
    assert ticks(rig, "last") == ticks(rig, "all")[-1:]
    assert len(ticks(rig, "none")) <= 1
