"""Schedules submit one job at each tick, whichever projector is active, and however often it is killed."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from jobtape.consumer.projector.dispatch import scheduler
from jobtape.consumer.projector.dispatch.scheduler import Scheduler
from jobtape.process import clock
from jobtape.schemas.events import Submitted, submitted
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.job import Job, JobState, Order
from jobtape.schemas.rules.schedule import Schedule
from jobtape.schemas.topology import CANCEL_KEY, work_key
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.schedules import ADD, end, put, ticks
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
    """One of an imported tape is no obstacle: it has no work here."""
    nap = Order(type="nobody", payload={}, queue="default", timeout=30)
    foreign = order_event(rig.topology, "nobody", labels={"schedule": "slow"}).model_copy(update={"imported": "x"})
    async with rig.projector(view):
        await rig.publisher.publish(foreign)
        await put(rig, "slow", nap, every=1.0)
        skipped = JobQuery(labels=(("schedule", "slow"), ("skipped", "overlap")), states=(JobState.CANCELLED,))
        await eventually(lambda: view.list_jobs(skipped))
        open_jobs = [each for each in view.list_jobs(JobQuery(labels=(("schedule", "slow"),))) if not each.final]
        assert [each.imported for each in open_jobs] == [False, True]


async def test_tick_cancels_the_job_of_an_earlier_one(rig: Rig, view: Store) -> None:
    nap = Order(type="nobody", payload={}, queue="default", timeout=30)
    async with rig.projector(view):
        rule = await put(rig, "slow", nap, every=1.0, overlap="cancel")
        ended = JobQuery(labels=(("schedule", "slow"),), states=(JobState.CANCELLED,))
        await eventually(lambda: len(view.list_jobs(ended)) >= 2)
        await end(rig, rule)
        every = JobQuery(labels=(("schedule", "slow"),))

        def only_the_newest_is_open() -> bool:
            newest, *earlier = view.list_jobs(every)
            return not newest.final and {each.state for each in earlier} == {JobState.CANCELLED}

        await eventually(only_the_newest_is_open)
        assert all("skipped" not in (each.labels or {}) for each in view.list_jobs(every))


async def test_queued_ticks_run_one_after_the_other(rig: Rig, view: Store) -> None:
    nap = Order(type="nobody", payload={}, queue="default", timeout=30)
    async with rig.projector(view):
        await put(rig, "slow", nap, every=1.0, overlap="queue")
        query = JobQuery(labels=(("schedule", "slow"),))
        await eventually(lambda: len(view.list_jobs(query)) == 3)
        assert sorted(each.state for each in view.list_jobs(query)) == ["held", "held", "queued"]


async def test_one_tick_waits_for_the_job_of_an_earlier_one(rig: Rig, view: Store) -> None:
    """The next ones are skipped, and go on when it runs: also where several were missed."""
    nap = Order(type="nobody", payload={}, queue="default", timeout=30)
    async with rig.projector(view):
        await put(rig, "slow", nap, every=1.0, overlap="queue_one")
        await eventually(lambda: len(_ended(view, "slow")) >= 2)
        first, second = _open(view, "slow")
        assert (first.state, second.state) == ("queued", "held")
        await rig.publisher.publish(cancelled(first, source=rig.topology.source, time=datetime.now(UTC)), [CANCEL_KEY])

        def next_one_waits() -> bool:
            found = _open(view, "slow")
            return [each.state for each in found] == ["queued", "held"] and found[0].id == second.id

        await eventually(next_one_waits)


def _open(view: Store, name: str) -> list[Job]:
    found = view.list_jobs(JobQuery(labels=(("schedule", name),), states=scheduler._OPEN))
    return found[::-1]


def _ended(view: Store, name: str) -> list[Job]:
    return view.list_jobs(JobQuery(labels=(("schedule", name), ("skipped", "overlap")), states=(JobState.CANCELLED,)))


async def test_missed_ticks_are_submitted_by_the_policy(rig: Rig, view: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was submitted for an hour: the clock of the projector that becomes active is an hour later."""
    async with rig.projector(view):
        for policy in ("last", "none", "all"):
            await put(rig, policy, every=600.0, catch_up=policy)
        await eventually(lambda: len(view.open_jobs.rules()) == 3)

    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + timedelta(hours=1))
    async with rig.projector(view):
        await eventually(lambda: len(ticks(rig, "all")) >= 6)
        await eventually(lambda: len(ticks(rig, "last")) >= 1)
    assert len(ticks(rig, "all")) == 6
    assert ticks(rig, "last") == ticks(rig, "all")[-1:]
    assert len(ticks(rig, "none")) <= 1


async def test_clock_that_is_set_back_repeats_no_tick(rig: Rig, view: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the projector that has submitted it nor in the next one."""

    class Clock:
        @staticmethod
        def now(zone: Any) -> datetime:
            return datetime.now(zone) - timedelta(seconds=3)

    async with rig.projector(view):
        await put(rig, "often", every=1.0, overlap="allow")
        await eventually(lambda: len(ticks(rig, "often")) >= 2)
        monkeypatch.setattr(scheduler, "datetime", Clock)
        seen = len(ticks(rig, "often"))
        await eventually(lambda: len(ticks(rig, "often")) >= seen + 2)
    async with rig.projector(view):
        seen = len(ticks(rig, "often"))
        await eventually(lambda: len(ticks(rig, "often")) >= seen + 2)
    found = ticks(rig, "often")
    assert found == [found[0] + timedelta(seconds=n) for n in range(len(found))]


async def test_projector_that_becomes_active_again_forgets_schedules_that_have_ended(rig: Rig, view: Store) -> None:
    async with rig.projector(view, owner="p1", lease=1.0):
        rule = await put(rig, "old", every=1.0)
        await eventually(lambda: ticks(rig, "old"))
        async with rig.projector(view, owner="p2", lease=1.0, ready=False):
            await eventually(lambda: _leads(view, "p2"), what="p1 loses its lease")
            await end(rig, rule)
            await eventually(lambda: not view.open_jobs.rules())
        await eventually(lambda: _owner(view) == "p1")
        seen = len(ticks(rig, "old"))
        await put(rig, "new", every=1.0)
        await eventually(lambda: len(ticks(rig, "new")) >= 2)
        assert len(ticks(rig, "old")) == seen


def _owner(view: Store) -> str | None:
    checkpoint = view.checkpoint()
    return None if checkpoint is None else checkpoint.owner


def _leads(view: Store, owner: str) -> bool:
    """Return whether ``owner`` is the active projector; take the lease from another one."""
    now = _owner(view)
    if now is not None and now != owner:
        view.release_lease(now)
    return now == owner


async def test_triggered_job_is_no_tick(rig: Rig, view: Store) -> None:
    """Otherwise a tick that was missed before would not be submitted late."""
    found = Scheduler(SimpleNamespace(store=view, call=asyncio.to_thread))  # type: ignore[arg-type]
    schedule = Schedule(name="hourly", order=ADD, every=3600.0)
    async with rig.projector(view):
        event = order_event(rig.topology, "add", ADD.payload, labels={"schedule": "hourly"})
        await rig.publisher.publish(event, [work_key("default")])
        await eventually(lambda: view.job(event.subject))
        assert await found._newest_tick(schedule) is None
        tick = next(schedule.after(datetime.now(UTC) - timedelta(hours=1)))
        job = submitted(schedule.job_id(tick), schedule.order_for(), source=rig.topology.source, time=tick)
        await rig.publisher.publish(job)
        await eventually(lambda: view.job(job.subject))
        assert await found._newest_tick(schedule) == tick
