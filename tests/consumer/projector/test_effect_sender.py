"""Effects are published once, also when a projector dies, and not again when a tape is folded again."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobtape.broker import declare
from jobtape.consumer.folding import outbox_row
from jobtape.consumer.projector import projector as projector_module
from jobtape.consumer.projector.services import LeaderServices
from jobtape.schemas import ids
from jobtape.schemas.effects import Effect
from jobtape.schemas.events import Failed, Redriven, RedrivenData, Requeued, decode
from jobtape.schemas.job import Job, JobState
from jobtape.view.store import Batch, OutboxRow, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def redriven(job_id: str, run: int, source: str, job_type: str = "boom") -> Redriven:
    return Redriven(
        id=ids.run_fact(job_id, run, "redriven"),
        source=source,
        subject=job_id,
        time=datetime.now(UTC),
        data=RedrivenData(job_type=job_type, run=run, attempt=1),
    )


def requeued(rig: Rig, job_id: str) -> list[str]:
    return [event.id for event in rig.of(job_id) if isinstance(event, Requeued)]


def state_is(store: Store, job_id: str, state: JobState, run: int) -> Callable[[], Job | None]:
    def condition() -> Job | None:
        job = store.job(job_id)
        return job if job is not None and (job.state, job.run) == (state, run) else None

    return condition


def start_nothing(self: LeaderServices) -> None:
    """Start no services: the projector dies after its commit and before it sends effects."""


@pytest.fixture
async def failed(rig: Rig, store: Store) -> str:
    """A job that has failed; no projector runs."""
    async with rig.projector(store), rig.worker(jobs.boom):
        job_id = await rig.submit("boom", labels={"a": "b"}, correlation_id="c", max_attempts=1)
        await eventually(state_is(store, job_id, JobState.FAILED, 1))
    return job_id


async def test_two_redrives_at_once_make_one_run_and_one_execution(rig: Rig, store: Store, failed: str) -> None:
    async with rig.projector(store), rig.worker(jobs.boom):
        event = redriven(failed, 2, rig.topology.source)
        await asyncio.gather(rig.publisher.publish(event), rig.publisher.publish(event))
        job = await eventually(state_is(store, failed, JobState.FAILED, 2))
        report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    assert (job.labels, job.correlation_id, job.placed, job.attempt) == ({"a": "b"}, "c", 1, 1)
    assert rig.names(failed) == ["submitted", "failed", "redriven", "redriven", "requeued", "failed"]
    placed = next(event for event in rig.of(failed) if isinstance(event, Requeued))
    assert (placed.id, placed.causationid, placed.data.why) == (f"{failed}/2/requeued/1", event.id, "redriven")
    assert (report.executions, report.repeated, store.outbox.count()) == (2, 0, 0)


async def leave_an_effect(rig: Rig, store: Store, failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold a redrive in a projector that ends before it sends the effect."""
    with monkeypatch.context() as patched:
        patched.setattr(LeaderServices, "start", start_nothing)
        async with rig.projector(store, owner="dies"):
            await rig.publisher.publish(redriven(failed, 2, rig.topology.source))
            await eventually(lambda: store.outbox.count() == 1)


async def test_sender_sends_rows_that_another_projector_left(
    rig: Rig, store: Store, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_an_effect(rig, store, failed, monkeypatch)
    async with rig.projector(store, owner="next"), rig.worker(jobs.boom):
        await eventually(state_is(store, failed, JobState.FAILED, 2))
        await eventually(lambda: store.outbox.count() == 0)
    assert len(requeued(rig, failed)) == 1


async def test_sender_does_not_send_rows_that_another_projector_has_sent(
    rig: Rig, store: Store, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other projector died after the publish, and before the event was folded."""
    await leave_an_effect(rig, store, failed, monkeypatch)
    (row,) = store.outbox.due(10)
    await rig.publisher.publish(decode(row.event.encode()), row.keys)
    async with rig.projector(store, owner="next"), rig.worker(jobs.boom):
        await eventually(state_is(store, failed, JobState.FAILED, 2))
        report = await Checker(rig.url, rig.topology).check(store)
    assert len(requeued(rig, failed)) == 1
    assert (report.problems, report.executions, store.outbox.count()) == ([], 2, 0)


async def test_sender_does_not_send_a_row_that_is_folded_during_the_query(
    rig: Rig, store: Store, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queried, folded = threading.Event(), threading.Event()
    query, commit, notify = store.outbox.due, store.commit, LeaderServices.notify
    queries = itertools.count()

    def effects_due(limit: int) -> list[OutboxRow]:
        rows = query(limit)
        if rows and next(queries) == 1:
            queried.set()
            assert folded.wait(10)
        return rows

    def commit_after_the_query(owner: str, at: tuple[int, int | None], batch: Batch, lease: float) -> bool:
        assert not batch.seen or queried.wait(10)
        return commit(owner, at, batch, lease)

    def notify_and_set(self: LeaderServices, batch: Batch) -> None:
        notify(self, batch)
        if batch.seen:
            folded.set()

    monkeypatch.setattr(store.outbox, "due", effects_due)
    monkeypatch.setattr(store, "commit", commit_after_the_query)
    monkeypatch.setattr(LeaderServices, "notify", notify_and_set)
    async with rig.projector(store), rig.worker(jobs.boom):
        await rig.publisher.publish(redriven(failed, 2, rig.topology.source))
        await eventually(state_is(store, failed, JobState.FAILED, 2))
        await eventually(folded.is_set)
        # A repeat would be on the tape before this.
        await rig.publisher.publish(redriven(failed, 3, rig.topology.source))
        await eventually(state_is(store, failed, JobState.FAILED, 3))
    assert requeued(rig, failed) == [f"{failed}/2/requeued/1", f"{failed}/3/requeued/1"]


async def test_add_effects_ignores_an_effect_that_is_on_the_tape(rig: Rig, store: Store, failed: str) -> None:
    async with rig.projector(store), rig.worker(jobs.boom):
        await rig.publisher.publish(redriven(failed, 2, rig.topology.source))
        await eventually(state_is(store, failed, JobState.FAILED, 2))
    placed = next(event for event in rig.of(failed) if isinstance(event, Requeued))
    again = outbox_row(Effect(placed))
    assert store.take_lease("me", 60)
    assert store.outbox.add("me", [again, replace(again, id=f"{failed}/2/requeued/2")])
    assert [row.id for row in store.outbox.due(10)] == [f"{failed}/2/requeued/2"]


async def test_new_view_of_an_old_tape_sends_no_effects(
    rig: Rig, store: Store, failed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds message by message, so that each effect is in the outbox for a while."""
    async with rig.projector(store), rig.worker(jobs.boom):
        for run in (2, 3):
            await rig.publisher.publish(redriven(failed, run, rig.topology.source))
            await eventually(state_is(store, failed, JobState.FAILED, run))
    before = len(rig.events)
    monkeypatch.setattr(projector_module, "PREFETCH", 1)
    fresh = Store(f"sqlite:///{tmp_path / 'fresh.db'}")
    try:
        async with rig.projector(fresh, owner="fresh"):
            assert not (await Checker(rig.url, rig.topology).check(fresh)).problems
            assert fresh.job(failed) == store.job(failed)
            # A second barrier: what was sent after the first one would be on the tape by now.
            await Checker(rig.url, rig.topology).check(fresh)
        assert (len(rig.events), fresh.outbox.count()) == (before, 0)
    finally:
        fresh.close()


async def test_work_for_a_missing_queue_waits_for_the_queue(rig: Rig, store: Store, failed: str) -> None:
    name = rig.topology.work_queue("default").name
    async with rig.projector(store):
        connection = await rig.link.connection()
        channel = await connection.channel()
        await channel.queue_delete(name)
        await rig.publisher.publish(redriven(failed, 2, rig.topology.source))
        await eventually(lambda: store.outbox.count() == 1)
        await eventually(state_is(store, failed, JobState.QUEUED, 2))
        assert requeued(rig, failed) == []
        await declare.declare(connection, rig.topology)
        async with rig.worker(jobs.boom):
            await eventually(state_is(store, failed, JobState.FAILED, 2))
        await channel.close()
    assert len(requeued(rig, failed)) == 1


async def test_redrive_of_an_unknown_job_places_no_work(rig: Rig, store: Store) -> None:
    unknown = "01890a5d-ac96-774b-bcce-b302099a8057"
    async with rig.projector(store):
        await rig.publisher.publish(redriven(unknown, 2, rig.topology.source))
        job = await eventually(state_is(store, unknown, JobState.QUEUED, 2))
    assert (job.placed, store.outbox.count(), requeued(rig, unknown)) == (0, 0, [])
    assert not any(isinstance(event, Failed) for event in rig.of(unknown))
