"""What a projector placed last is placed again if the broker has lost it, and only then. On both databases."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jobtape import job
from jobtape.broker.declare import Depth
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.consumer.projector.maintenance import unconfirmed_placements
from jobtape.consumer.projector.maintenance.unconfirmed_placements import UnconfirmedPlacements
from jobtape.consumer.projector.services import ProjectorServices
from jobtape.schemas.events import Placed, Submitted
from jobtape.schemas.fold import evolve
from jobtape.schemas.gates import Gates
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.placement import placement
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.consumer.projector.maintenance.test_dead_letters import state_is
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@job("until-opened")
async def until_opened() -> None:
    await opened.wait()


opened = asyncio.Event()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unconfirmed_placements, "CHECK", 0.1)
    # An event belongs to the loop on which it was first waited for.
    monkeypatch.setitem(globals(), "opened", asyncio.Event())


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[UnconfirmedPlacements]:
    """One entry for each check that has ended."""
    found: list[UnconfirmedPlacements] = []
    check = UnconfirmedPlacements._check

    async def noted(self: UnconfirmedPlacements, passed_at: dict[str, float]) -> None:
        await check(self, passed_at)
        found.append(self)

    monkeypatch.setattr(UnconfirmedPlacements, "_check", noted)
    return found


def gated(rig: Rig, job_type: str = "add") -> Submitted:
    payload = {"x": 1, "y": 2} if job_type == "add" else {}
    return order_event(rig.topology, job_type, payload, gates=Gates(ordering_key="a"))


def placed(rig: Rig, event: Submitted) -> Placed:
    made = placement(evolve(None, event), source=rig.topology.source, time=datetime.now(UTC), fence=0)
    assert made is not None
    return made


async def succeeded(store: Store, job_id: str) -> Job:
    return await eventually(state_is(store, job_id, JobState.SUCCEEDED), 40)


async def test_placement_that_reached_only_the_tape_is_placed_again(rig: Rig, store: Store) -> None:
    """As after a SIGKILL of the projector that placed it. Otherwise it would keep its ordering key for an hour."""
    lost, following = gated(rig), gated(rig)
    await rig.publisher.publish(lost)
    await rig.publisher.publish(placed(rig, lost))
    await rig.publisher.publish(following)
    async with rig.projector(store), rig.worker(jobs.add):
        await succeeded(store, following.subject)
        report = await Checker(rig.url, rig.topology).check(store)
    assert (report.problems, report.executions, report.repeated) == ([], 2, 0)
    assert rig.names(lost.subject) == ["submitted", "placed", "placed", "succeeded"]
    assert [event.data.why for event in rig.of(lost.subject) if isinstance(event, Placed)] == ["due", "lost"]


async def test_lost_placement_is_placed_again_although_the_queue_is_never_empty(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that was put on the queue later has come off it."""

    async def never_empty(_self: UnconfirmedPlacements, _queue: str) -> Depth:
        return Depth(messages=5, consumers=1)

    monkeypatch.setattr(UnconfirmedPlacements, "_depth", never_empty)
    lost = gated(rig)
    await rig.publisher.publish(lost)
    await rig.publisher.publish(placed(rig, lost))
    async with rig.projector(store), rig.worker(jobs.add):
        await eventually(lambda: store.job(lost.subject))
        await rig.submit("add", {"x": 1, "y": 1})
        await succeeded(store, lost.subject)


async def test_work_that_waits_is_not_placed_again(
    rig: Rig, store: Store, checks: list[UnconfirmedPlacements], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First on its queue, then in a worker without a free slot."""
    monkeypatch.setattr(unconfirmed_placements, "MARGIN", 0.0)
    blocking = await rig.submit("until-opened")
    waits = gated(rig)
    await rig.publisher.publish(waits)
    await rig.publisher.place(placed(rig, waits))
    async with rig.projector(store):
        await eventually(lambda: len(checks) >= 3)
        async with rig.worker(until_opened, jobs.add, concurrency=1):
            await eventually(state_is(store, blocking, JobState.RUNNING))

            def shown() -> bool:
                return any(waits.subject in each.sign.waiting for each in store.worker_signs.all())

            await eventually(shown, what="the worker says that the job waits in it")
            before = len(checks)
            await eventually(lambda: len(checks) >= before + 5)
            opened.set()
            await succeeded(store, waits.subject)
    assert rig.names(waits.subject) == ["submitted", "placed", "succeeded"]


async def test_projector_whose_lease_was_not_renewed_places_nothing(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after SIGCONT, before it has noticed that another one is active."""
    projectors: list[ActiveProjector] = []
    check = ActiveProjector.check_active
    over = asyncio.Event()

    def ended(self: ActiveProjector) -> None:
        projectors.append(self)
        if not over.is_set():
            self.active_until = 0.0
        check(self)

    monkeypatch.setattr(ActiveProjector, "check_active", ended)
    monkeypatch.setattr(ProjectorServices, "renewed", lambda self, until: setattr(self._active, "active_until", until))
    event = gated(rig)
    async with rig.projector(store), rig.worker(jobs.add):
        await rig.publisher.publish(event)
        await eventually(lambda: len(projectors) >= 2, what="the placer has tried again")
        assert rig.names(event.subject) == ["submitted"]
        over.set()
        await succeeded(store, event.subject)
    assert rig.names(event.subject) == ["submitted", "placed", "succeeded"]


async def test_view_names_queues_of_old_placements_with_slots(rig: Rig, store: Store) -> None:
    """The doctor compares them with the depths of the queues."""
    event = gated(rig)
    async with rig.projector(store):
        await rig.publisher.publish(event)
        await eventually(lambda: store.open_jobs.queued_with_slots(datetime.now(UTC) + timedelta(seconds=1)))
        found = store.open_jobs.queued_with_slots(datetime.now(UTC) + timedelta(seconds=1))
    assert found == {"default": (event.subject, 1)}
    assert store.open_jobs.queued_with_slots(event.time) == {}
