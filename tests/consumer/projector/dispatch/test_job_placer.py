"""Work that is due is placed once, also when a projector dies, and not again when a tape is folded again."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobtape.broker import declare
from jobtape.broker.publisher import Publisher
from jobtape.consumer.projector import projector as projector_module
from jobtape.consumer.projector.dispatch import job_placer
from jobtape.consumer.projector.dispatch.job_placer import JobPlacer
from jobtape.consumer.projector.services import ProjectorServices
from jobtape.schemas import ids
from jobtape.schemas.events import Deferred, Failed, Placed, Redriven, RedrivenData, Submitted, WorkEvent
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.events.placement import deferral, placement
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.topology import CANCEL_KEY
from jobtape.view.store import DueJob, FoldedBatch, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import LIMIT, eventually

pytestmark = pytest.mark.anyio


def redriven(job_id: str, run: int, source: str, job_type: str = "boom") -> Redriven:
    return Redriven(
        id=ids.run_event_id(job_id, run, "redriven"),
        source=source,
        subject=job_id,
        time=datetime.now(UTC),
        data=RedrivenData(job_type=job_type, run=run, attempt=1),
    )


def placements(rig: Rig, job_id: str) -> list[str]:
    return [event.id for event in rig.of(job_id) if isinstance(event, Placed)]


def state_is(store: Store, job_id: str, state: JobState, run: int = 1) -> Callable[[], Job | None]:
    def condition() -> Job | None:
        job = store.job(job_id)
        return job if job is not None and (job.state, job.run) == (state, run) else None

    return condition


def waits(store: Store, n: int = 1) -> Callable[[], bool]:
    return lambda: len(store.open_jobs.timed(100)) == n


def start_nothing(self: ProjectorServices) -> None:
    """Start no services: the projector dies after its commit and before it places anything."""


def due_in(rig: Rig, seconds: float, job_type: str = "add") -> Submitted:
    run_at = datetime.now(UTC) + timedelta(seconds=seconds)
    return order_event(rig.topology, job_type, {"x": 1, "y": 2}, run_at=run_at)


@pytest.fixture
async def failed(rig: Rig, store: Store) -> str:
    """A job that has failed; no projector runs."""
    async with rig.projector(store), rig.worker(jobs.boom):
        job_id = await rig.submit("boom", labels={"a": "b"}, correlation_id="c", max_attempts=1)
        await eventually(state_is(store, job_id, JobState.FAILED))
    return job_id


async def test_delayed_job_is_placed_when_it_is_due(rig: Rig, store: Store) -> None:
    event, later = due_in(rig, 0.7), due_in(rig, 365 * 86_400.0)
    async with rig.projector(store), rig.worker(jobs.add):
        await asyncio.gather(*(rig.publisher.publish(each) for each in (event, later)))
        job = await eventually(state_is(store, event.subject, JobState.SUCCEEDED))
        report = await Checker(rig.url, rig.topology).check(store)
    assert report.problems == [f"stuck: {later.subject} is scheduled"]
    await rig.read_to_end()
    assert rig.steps(event.subject) == ["submitted", "placed", "succeeded"]
    assert event.data.order.run_at is not None
    assert job.started_at is not None and job.started_at >= event.data.order.run_at
    assert rig.names(later.subject) == ["submitted"]
    assert job.run_at == event.data.order.run_at


async def test_cancel_before_due_removes_timer(rig: Rig, store: Store) -> None:
    event, other = due_in(rig, 3.0), due_in(rig, 3.1)
    async with rig.projector(store), rig.worker(jobs.add):
        await rig.publisher.publish(event)
        await rig.publisher.publish(other)
        job = evolve(None, event)
        await rig.publisher.publish(cancelled(job, source=rig.topology.source, time=datetime.now(UTC)), [CANCEL_KEY])
        await eventually(state_is(store, event.subject, JobState.CANCELLED))
        await eventually(state_is(store, other.subject, JobState.SUCCEEDED))
    await rig.read_to_end()
    assert rig.names(event.subject) == ["submitted", "cancelled"]


async def test_job_cancelled_while_it_is_placed_is_forgotten(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its placement is rejected. A placer that waited for it would have room for one job less forever."""
    placers: list[JobPlacer] = []
    open_for = JobPlacer._open_for

    async def open_for_cancelled(self: JobPlacer, queue: str, waiting: list[Job]) -> list[Job]:
        placers.append(self)
        for job in waiting:
            await rig.publisher.publish(
                cancelled(job, source=rig.topology.source, time=datetime.now(UTC)), [CANCEL_KEY]
            )
            await eventually(state_is(store, job.id, JobState.CANCELLED))
        return await open_for(self, queue, waiting)

    monkeypatch.setattr(JobPlacer, "_open_for", open_for_cancelled)
    event = due_in(rig, 0.1)
    async with rig.projector(store):
        await rig.publisher.publish(event)
        await eventually(lambda: placements(rig, event.subject))
        await eventually(lambda: not placers[0]._unseen, what="the placer has forgotten the job")
        job = store.job(event.subject)
        assert job is not None and job.state is JobState.CANCELLED


async def test_placement_that_is_not_confirmed_yet_delays_no_other(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = due_in(rig, 0.1)
    begun, confirmed = asyncio.Event(), asyncio.Event()
    place = Publisher.place

    async def place_later(self: Publisher, event: WorkEvent, *, timeout: float | None = None) -> Deferred | None:
        if event.subject == first.subject:
            begun.set()
            await confirmed.wait()
        return await place(self, event, timeout=timeout)

    monkeypatch.setattr(Publisher, "place", place_later)
    async with rig.projector(store), rig.worker(jobs.add):
        await rig.publisher.publish(first)
        async with asyncio.timeout(LIMIT):
            await begun.wait()
        second = due_in(rig, 0.2)
        await rig.publisher.publish(second)
        await eventually(state_is(store, second.subject, JobState.SUCCEEDED))
        await rig.read_to_end()
        assert placements(rig, first.subject) == []
        confirmed.set()
        await eventually(state_is(store, first.subject, JobState.SUCCEEDED))


@pytest.mark.parametrize(
    ("value", "small"),
    [
        ({"x": 1, "y": [1, {"z": "text"}]}, True),
        ({"x": "x" * job_placer.RECENT_SIZE}, False),
        ({"x": [[0] * 100] * 100}, False),
        ({"x" * job_placer.RECENT_SIZE: 1}, False),
    ],
)
def test_small_payloads_are_kept(value: object, small: bool) -> None:
    assert job_placer._is_small(value) is small


async def test_many_due_at_once_are_placed_once_each(rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a page, and more than the placer has on its way at once."""
    # Those that a busy broker confirms later than this are placed again.
    monkeypatch.setattr(job_placer, "CONFIRM_TIMEOUT", LIMIT)
    run_at = datetime.now(UTC) + timedelta(seconds=3)  # the orders must be made by then
    n = job_placer.MAX_UNSEEN + job_placer.PAGE // 2
    events = [order_event(rig.topology, "add", {"x": i, "y": 1}, run_at=run_at) for i in range(n)]
    async with rig.projector(store):
        await asyncio.gather(*(rig.publisher.publish(event, timeout=60) for event in events))
        await eventually(rig.depth_is(n), what="all work is on the queue")
        await eventually(waits(store, 0))
    await rig.read_to_end()
    found = [event for event in rig.events if isinstance(event, Placed)]
    assert len(found) == len({event.id for event in found}) == n
    assert min(event.time for event in found) >= run_at


async def test_two_redrives_at_once_make_one_run_and_one_execution(rig: Rig, store: Store, failed: str) -> None:
    async with rig.projector(store), rig.worker(jobs.boom):
        event = redriven(failed, 2, rig.topology.source)
        await asyncio.gather(rig.publisher.publish(event), rig.publisher.publish(event))
        job = await eventually(state_is(store, failed, JobState.FAILED, 2))
        report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    assert (job.labels, job.correlation_id, job.placed, job.attempt) == ({"a": "b"}, "c", 1, 1)
    await rig.read_to_end()
    assert rig.steps(failed) == ["submitted", "failed", "redriven", "redriven", "placed", "failed"]
    assert (report.executions, report.repeated) == (2, 0)


async def leave_a_waiting_job(rig: Rig, store: Store, failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold a redrive in a projector that ends before it places the work."""
    with monkeypatch.context() as patched:
        patched.setattr(ProjectorServices, "start", start_nothing)
        async with rig.projector(store, owner="dies"):
            await rig.publisher.publish(redriven(failed, 2, rig.topology.source))
            await eventually(waits(store))


async def test_placer_places_work_that_another_projector_left(
    rig: Rig, store: Store, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_a_waiting_job(rig, store, failed, monkeypatch)
    async with rig.projector(store, owner="next"), rig.worker(jobs.boom):
        await eventually(state_is(store, failed, JobState.FAILED, 2))
    await rig.read_to_end()
    assert len(placements(rig, failed)) == 1


async def test_placer_does_not_place_work_that_another_projector_has_placed(
    rig: Rig, store: Store, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other projector died after the publish, and before the event was folded."""
    await leave_a_waiting_job(rig, store, failed, monkeypatch)
    job = store.job(failed)
    assert job is not None
    event = placement(job, source=rig.topology.source, time=datetime.now(UTC), fence=0)
    assert event is not None
    await rig.publisher.place(event)
    async with rig.projector(store, owner="next"), rig.worker(jobs.boom):
        await eventually(state_is(store, failed, JobState.FAILED, 2))
        report = await Checker(rig.url, rig.topology).check(store)
    await rig.read_to_end()
    assert len(placements(rig, failed)) == 1
    assert (report.problems, report.executions) == ([], 2)


async def test_placer_does_not_place_work_that_is_folded_during_the_query(
    rig: Rig, store: Store, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queried, folded = threading.Event(), threading.Event()
    query, commit, notify = store.open_jobs.timed, store.commit, ProjectorServices.notify
    queries = itertools.count()

    def has_placed(batch: FoldedBatch) -> bool:
        return any(entry.name == "placed" for entry in batch.history)

    def waiting(limit: int, *without: Collection[str]) -> list[DueJob]:
        rows = query(limit, *without)
        if rows and next(queries) == 1:
            queried.set()
            assert folded.wait(LIMIT)
        return rows

    def commit_after_the_query(owner: str, at: tuple[int, int | None], batch: FoldedBatch, lease: float) -> bool:
        assert not has_placed(batch) or queried.wait(LIMIT)
        return commit(owner, at, batch, lease)

    def notify_and_set(self: ProjectorServices, batch: FoldedBatch, cursor: int) -> None:
        notify(self, batch, cursor)
        if has_placed(batch):
            folded.set()

    monkeypatch.setattr(store.open_jobs, "timed", waiting)
    monkeypatch.setattr(store, "commit", commit_after_the_query)
    monkeypatch.setattr(ProjectorServices, "notify", notify_and_set)
    async with rig.projector(store), rig.worker(jobs.boom):
        await rig.publisher.publish(redriven(failed, 2, rig.topology.source))
        await eventually(state_is(store, failed, JobState.FAILED, 2))
        await eventually(folded.is_set)
        # A repeat would be on the tape before this.
        await rig.publisher.publish(redriven(failed, 3, rig.topology.source))
        await eventually(state_is(store, failed, JobState.FAILED, 3))
    await rig.read_to_end()
    assert placements(rig, failed) == [f"{failed}/2/1/placed/1", f"{failed}/3/1/placed/1"]


async def test_new_view_of_an_old_tape_places_nothing(
    rig: Rig, store: Store, failed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds message by message, so that each job waits in the view for a while."""
    async with rig.projector(store), rig.worker(jobs.boom):
        for run in (2, 3):
            await rig.publisher.publish(redriven(failed, run, rig.topology.source))
            await eventually(state_is(store, failed, JobState.FAILED, run))
    await rig.read_to_end()
    before = len(rig.events)
    monkeypatch.setattr(projector_module, "PREFETCH", 1)
    fresh = Store(f"sqlite:///{tmp_path / 'fresh.db'}")
    try:
        async with rig.projector(fresh, owner="fresh"):
            assert not (await Checker(rig.url, rig.topology).check(fresh)).problems
            assert fresh.job(failed) == store.job(failed)
            # A second barrier: what was published after the first one would be on the tape by now.
            await Checker(rig.url, rig.topology).check(fresh)
        await rig.read_to_end()
        assert len(rig.events) == before
    finally:
        fresh.close()


async def test_work_for_a_missing_queue_waits_for_the_queue(rig: Rig, store: Store, failed: str) -> None:
    name = rig.topology.work_queue("default").name
    async with rig.projector(store):
        connection = await rig.link.connection()
        channel = await connection.channel()
        await channel.queue_delete(name)
        await rig.publisher.publish(redriven(failed, 2, rig.topology.source))
        await eventually(waits(store))
        await eventually(state_is(store, failed, JobState.QUEUED, 2))
        await rig.read_to_end()
        assert placements(rig, failed) == []
        await declare.declare(connection, rig.topology)
        async with rig.worker(jobs.boom):
            await eventually(state_is(store, failed, JobState.FAILED, 2))
        await channel.close()
    await rig.read_to_end()
    assert len(placements(rig, failed)) == 1


async def test_queue_without_binding_gets_the_work(rig: Rig, store: Store) -> None:
    """A worker declares its queue and binds it a moment later. The placer may find the queue in between."""
    work = rig.topology.work_queue("default")
    event = due_in(rig, 0.2)
    async with rig.projector(store):
        channel = await (await rig.link.connection()).channel()
        await channel.queue_delete(work.name)
        await channel.declare_queue(work.name, durable=True, arguments=work.declared_arguments())
        await rig.publisher.publish(event)
        await eventually(rig.depth_is(1), what="the work is on the queue")
        await channel.close()


async def test_missing_queue_does_not_delay_another(rig: Rig, store: Store) -> None:
    async with rig.projector(store), rig.worker(jobs.add):
        stuck = [due_in(rig, 0.1) for _ in range(3)]
        for each in stuck:
            order = each.data.order.model_copy(update={"queue": "nowhere"})
            await rig.publisher.publish(each.model_copy(update={"data": each.data.model_copy(update={"order": order})}))
        event = due_in(rig, 0.3)
        await rig.publisher.publish(event)
        await eventually(state_is(store, event.subject, JobState.SUCCEEDED))
        assert waits(store, 3)()


async def test_dropped_job_waits_for_a_consumer_and_delays_no_other(rig: Rig, store: Store) -> None:
    """Without a consumer its work would only be dropped again."""
    dropped, later = order_event(rig.topology, "add", {"x": 1, "y": 2}), due_in(rig, 0.1)
    async with rig.projector(store):
        await rig.publisher.publish(dropped)
        long_ago = datetime.now(UTC) - timedelta(seconds=60)
        await rig.publisher.publish(deferral(dropped, "expired", source=rig.topology.source, time=long_ago))
        await rig.publisher.publish(later)
        await eventually(lambda: placements(rig, later.subject))
        await rig.read_to_end()
        assert placements(rig, dropped.subject) == []
        async with rig.worker(jobs.add):
            await eventually(state_is(store, dropped.subject, JobState.SUCCEEDED))


async def test_redrive_of_an_unknown_job_places_no_work(rig: Rig, store: Store) -> None:
    unknown = "01890a5d-ac96-774b-bcce-b302099a8057"
    async with rig.projector(store):
        await rig.publisher.publish(redriven(unknown, 2, rig.topology.source))
        job = await eventually(state_is(store, unknown, JobState.QUEUED, 2))
    await rig.read_to_end()
    assert (job.placed, job.awaits_placement, placements(rig, unknown)) == (0, False, [])
    assert not any(isinstance(event, Failed) for event in rig.of(unknown))
