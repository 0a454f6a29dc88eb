"""Work that the tape has and the work queue has not is placed again within seconds. On both databases."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from jobtape.broker.declare import Depth
from jobtape.consumer.folding import fold_messages
from jobtape.consumer.projector.active_projector import ActiveProjector
from jobtape.consumer.projector.maintenance import lost_messages, worker_registry
from jobtape.consumer.projector.maintenance.lost_messages import LostMessages
from jobtape.consumer.projector.services import ProjectorServices
from jobtape.consumer.worker import signs_of_life
from jobtape.schemas.events import Placed, Started, StartedData, Submitted, decode, encode, encoded_success
from jobtape.schemas.events.placement import placement
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.queueing.gates import Gates
from jobtape.schemas.topology import Topology
from jobtape.view.store import RawMessage, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.consumer.projector.maintenance.test_dead_letters import state_is
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, seconds in (
        (lost_messages, "CHECK", 0.1),
        (lost_messages, "SETTLE", 0.3),
        (lost_messages, "DISORDER", 0.2),
        (lost_messages, "MARGIN", 1.0),
        (worker_registry, "PAUSE", 0.1),
        (signs_of_life, "BUSY_INTERVAL", 0.1),
        (signs_of_life, "IDLE_INTERVAL", 0.4),
    ):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[LostMessages]:
    """One entry for each check that has ended."""
    found: list[LostMessages] = []
    check = LostMessages._check

    async def noted(self: LostMessages) -> None:
        await check(self)
        found.append(self)

    monkeypatch.setattr(LostMessages, "_check", noted)
    return found


def gated(rig: Rig, job_type: str = "add") -> Submitted:
    payload = {"x": 1, "y": 2} if job_type == "add" else {}
    return order_event(rig.topology, job_type, payload, gates=Gates(ordering_key="a"))


def placed(rig: Rig, event: Submitted) -> Placed:
    made = placement(evolve(None, event), source=rig.topology.source, time=datetime.now(UTC), fence=0)
    assert made is not None
    return made


async def succeeded(store: Store, job_id: str) -> Job:
    return await eventually(state_is(store, job_id, JobState.SUCCEEDED))


def reasons(rig: Rig, job_id: str) -> list[str]:
    """Return why the work of a job was placed, each time."""
    return [event.data.why for event in rig.of(job_id) if isinstance(event, Placed)]


async def test_work_that_reached_only_the_tape_is_placed_again(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a SIGKILL of the API that submitted it, or of the projector that placed it and that has ended."""
    monkeypatch.setattr(lost_messages, "MARGIN", 3.0)  # as in life, since nothing is executed twice here
    before = order_event(rig.topology, "add", {"x": 1, "y": 2})
    gated_before, following = gated(rig), gated(rig)
    await rig.publisher.publish(before)
    await rig.publisher.publish(gated_before)
    await rig.publisher.publish(placed(rig, gated_before))
    await rig.publisher.publish(following)
    async with rig.projector(store), rig.worker(jobs.add):
        await succeeded(store, before.subject)
        await succeeded(store, following.subject)
        meanwhile = [order_event(rig.topology, "add", {"x": n, "y": 2}) for n in range(3)]
        for event in meanwhile:
            await rig.publisher.publish(event)
        for event in meanwhile:
            await succeeded(store, event.subject)
        report = await Checker(rig.url, rig.topology).check(store)
    assert (report.problems, report.executions, report.repeated) == ([], 6, 0)
    await rig.read_to_end()
    for event in (before, *meanwhile):
        assert rig.steps(event.subject) == ["submitted", "placed", "succeeded"]
        assert reasons(rig, event.subject) == ["lost"]
    assert reasons(rig, gated_before.subject) == ["due", "lost"]
    assert reasons(rig, following.subject) == ["due"]


class Fold:
    """Folds messages for a ``LostMessages``. A call returns the jobs whose work is not on the queue any more.

    ``soon``: right after the call before, otherwise long after it.
    """

    def __init__(self) -> None:
        self._lost = LostMessages(cast("ActiveProjector", None))
        self._lost._tracking = True
        self._jobs: dict[str, Job] = {}
        self._cursor = 0

    def __call__(self, *bodies: bytes, soon: bool = False) -> list[str]:
        if not soon:
            self._lost._moments.append((time.monotonic() - 10, self._cursor))
        entries = [RawMessage(self._cursor + n, body) for n, body in enumerate(bodies, 1)]
        self._cursor += len(entries)
        batch = fold_messages(entries, lambda ids: {each: self._jobs[each] for each in ids if each in self._jobs})
        self._jobs |= {job.id: job for job in batch.jobs}
        self._lost.notify(batch)
        return self._lost._queues["default"].jobs.not_on_queue(self._cursor, empty=False)


def started(event: Submitted) -> bytes:
    data = StartedData(job_type="add", run=1, attempt=1, execution="e", worker="w")
    event_id = f"{event.subject}/1/1/started/e"
    return encode(Started(id=event_id, source="t", subject=event.subject, time=event.time, data=data))


def test_only_work_that_was_on_the_queue_shows_how_far_it_is() -> None:
    """The job of a flow may end without having been placed: it takes a result in a fork, or has no payload."""
    topology, now = Topology("lost"), datetime.now(UTC)
    fold = Fold()

    def succeeded_at_once(event: Submitted) -> tuple[bytes, bytes]:
        done = encoded_success(
            event,
            source="t",
            worker="w",
            execution="e",
            started_at=now,
            duration=0.0,
            result=None,
            time=now,
            traceparent=None,
        )
        return encode(event), done.body

    def imported(body: bytes) -> bytes:
        return encode(decode(body).model_copy(update={"imported": "export", "importline": 1}))

    waits = order_event(topology, "add", {"x": 1, "y": 2})
    assert fold(encode(waits)) == []
    never_placed = order_event(topology, "add", {"x": 1, "y": 2}, gates=Gates())
    submission, end = succeeded_at_once(never_placed)
    assert fold(end, submission) == []
    assert fold(*map(imported, succeeded_at_once(order_event(topology, "add", {"x": 1, "y": 2})))) == []
    assert fold(*succeeded_at_once(order_event(topology, "add", {"x": 1, "y": 2}))) == [waits.subject]


def test_queue_may_have_another_order_than_the_tape_for_a_moment() -> None:
    """Of two publishers. The work that is second on the queue may wait there long for a free worker."""
    topology, fold = Topology("lost"), Fold()
    first, second, later = (order_event(topology, "add", {"x": n, "y": 2}) for n in range(3))
    assert fold(encode(first), encode(second), soon=True) == []
    assert fold(started(second), soon=True) == []
    assert fold(encode(later)) == []
    assert fold(started(later)) == [first.subject]


async def test_lost_work_is_placed_again_although_the_queue_is_never_empty(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that was put on the queue later has come off it."""

    async def never_empty(_self: LostMessages, _queue: str) -> Depth:
        return Depth(messages=5, consumers=1)

    monkeypatch.setattr(LostMessages, "_depth", never_empty)
    async with rig.projector(store), rig.worker(jobs.add):
        lost = order_event(rig.topology, "add", {"x": 1, "y": 2})
        await rig.publisher.publish(lost)

        async def later_work_is_done() -> Job | None:
            await rig.submit("add", {"x": 1, "y": 1})
            return state_is(store, lost.subject, JobState.SUCCEEDED)()

        await eventually(later_work_is_done)
    await rig.read_to_end()
    assert reasons(rig, lost.subject) == ["lost"]


@pytest.mark.usefixtures("closed_gate")
async def test_work_that_waits_is_not_placed_again(rig: Rig, store: Store, checks: list[LostMessages]) -> None:
    """First on its queue, then in a worker without a free slot, which is then stopped, then on the queue of another
    worker that works on what was submitted later.
    """
    blocking = [await rig.submit("hold")]
    waits = await rig.submit("add", {"x": 1, "y": 2})

    def is_named() -> bool:
        return any(waits in each.sign.waiting for each in store.worker_signs.all())

    async def checked() -> None:
        """Wait for more checks than lost work needs."""
        before = len(checks)
        await eventually(lambda: len(checks) >= before + 18)

    async with rig.projector(store):
        await checked()
        async with rig.worker(jobs.hold, jobs.add, concurrency=1, grace=0.1) as first:
            await eventually(state_is(store, blocking[0], JobState.RUNNING))
            await eventually(is_named, what="the worker says that the job waits in it")
            await checked()
            async with rig.worker(jobs.hold, jobs.aadd, concurrency=1, name="second"):
                blocking += [await rig.submit("hold") for _ in range(2)]
                await eventually(state_is(store, blocking[1], JobState.RUNNING))
                rig.stop(first.name)
                await checked()
                await checked()
                await rig.read_to_end()
                assert rig.names(waits) == ["submitted"]
                jobs.gate.set()
        async with rig.worker(jobs.hold, jobs.add):
            for job_id in (waits, *blocking):
                await succeeded(store, job_id)
    await rig.read_to_end()
    assert [reasons(rig, each) for each in (waits, *blocking)] == [[], [], [], []]


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
        await rig.read_to_end()
        assert rig.names(event.subject) == ["submitted"]
        over.set()
        await succeeded(store, event.subject)
    await rig.read_to_end()
    assert rig.steps(event.subject) == ["submitted", "placed", "succeeded"]


async def test_view_names_queues_of_old_placements_with_slots(rig: Rig, store: Store) -> None:
    """The doctor compares them with the depths of the queues."""
    event = gated(rig)
    async with rig.projector(store):
        await rig.publisher.publish(event)
        await eventually(lambda: store.open_jobs.queued_with_slots(datetime.now(UTC) + timedelta(seconds=1)))
        found = store.open_jobs.queued_with_slots(datetime.now(UTC) + timedelta(seconds=1))
    assert found == {"default": (event.subject, 1)}
    assert store.open_jobs.queued_with_slots(event.time) == {}
