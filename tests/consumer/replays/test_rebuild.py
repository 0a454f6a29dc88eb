"""Rebuilds while the view is read and written: the new view equals the old one, and no read goes back."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from jobtape.builtin.rebuild import rebuild
from jobtape.consumer.replays import by_job
from jobtape.consumer.replays import rebuild as rebuild_module
from jobtape.consumer.replays.long_task import Interrupted, TakenOver
from jobtape.consumer.replays.rebuild import RebuildAbandoned, Rebuilder
from jobtape.consumer.replays.tape_source import read_tape
from jobtape.schemas import fold
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.errors import PayloadInvalid, ViewUnavailable
from jobtape.schemas.events import JobEvent
from jobtape.schemas.execution.retry import POLICY
from jobtape.schemas.job import Job
from jobtape.view.maintenance import comparison as comparing
from jobtape.view.store import JobQuery, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig
from tests.consumer.rebuild_helpers import rebuilt, task_slice
from tests.counted import ALL_TIME
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def some_jobs(rig: Rig, n: int) -> list[str]:
    ids = [await rig.submit("add", {"x": i, "y": i}, labels={"n": str(i)}) for i in range(n)]
    await asyncio.gather(*(rig.outcome(job_id) for job_id in ids))
    return ids


async def test_no_read_fails_or_goes_back_during_a_rebuild(rig: Rig, store: Store) -> None:
    stop = asyncio.Event()
    highest: dict[str, int] = {}

    def read_all() -> None:
        now = {job.id: job.cursor for job in store.list_jobs(JobQuery(limit=100_000))}
        gone_back = {job_id for job_id, cursor in highest.items() if now.get(job_id, -1) < cursor}
        assert not gone_back, "every job that was read before is there, with the same cursor or a higher one"
        highest.update(now)

    async def reads() -> None:
        while not stop.is_set():
            await asyncio.to_thread(read_all)

    async def submits() -> list[str]:
        ids = []
        while not stop.is_set():
            ids += await some_jobs(rig, 10)
        return ids

    async with rig.projector(store), rig.worker(jobs.add, concurrency=10):
        await some_jobs(rig, 50)
        await eventually(lambda: len(store.list_jobs(JobQuery(limit=1000))) == 50)
        reading, submitting = asyncio.create_task(reads()), asyncio.create_task(submits())
        for key in ("a", "b"):
            await asyncio.to_thread(rebuilt, store, key)
        stop.set()
        await reading
        assert await submitting
        report = await Checker(rig.url, rig.topology).check(store)
    assert not report.problems, str(report)
    assert store.rebuilds.state() is None


async def test_rebuild_from_the_stream_repairs_a_damaged_history(rig: Rig, store: Store) -> None:
    async with rig.projector(store), rig.worker(jobs.add, concurrency=10):
        ids = await some_jobs(rig, 20)
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
        before, sums = [store.job(job_id) for job_id in ids], numbers(store)
        damage(store, ids[0])
        checkpoint = store.checkpoint()
        assert checkpoint is not None
        behind = cursor_of(checkpoint.epoch, 0) - 1
        working = Rebuilder(store, task_slice())
        state = store.rebuilds.begin("tape", behind)
        state = await working.from_stream(state, read_tape(rig.url, rig.topology, state.cursor, checkpoint))
        found = working.differences(state, 5)
        assert [each["job"] for each in found.examples] == [ids[0]]
        await asyncio.to_thread(working.switch, state)
        assert [store.job(job_id) for job_id in ids] == before
        assert numbers(store) == sums


def numbers(store: Store) -> tuple[Any, ...]:
    """Return all statistics."""
    read = store.statistics
    return sorted(read.jobs()), store.counts(), read.totals(ALL_TIME), read.failures(ALL_TIME, 100)


def damage(store: Store, job_id: str) -> None:
    from sqlalchemy import text

    with store._database.writing() as connection:
        connection.execute(text("UPDATE jobs SET state = 'failed' WHERE id = :id"), {"id": job_id})
        connection.execute(text("DELETE FROM history WHERE job_id = :id"), {"id": job_id})


@pytest.mark.parametrize("job_by_job", [True, False])
async def test_interrupted_rebuild_continues_in_another_process(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch, job_by_job: bool
) -> None:
    async with rig.projector(store), rig.worker(jobs.add, concurrency=10):
        ids = await some_jobs(rig, 20)
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
    monkeypatch.setattr(rebuild_module, "PAGE", 7)
    monkeypatch.setattr(store.rebuilds, "archive", in_sevens(store.rebuilds.archive))
    monkeypatch.setattr(store.rebuilds, "archive_by_job", in_sevens(store.rebuilds.archive_by_job))
    begun = store.rebuilds.begin("a", by_job=job_by_job)
    with pytest.raises(Interrupted):
        Rebuilder(store, task_slice(seconds=-1)).from_archive(begun)
    moved = store.rebuilds.begin("a", by_job=job_by_job)
    assert moved != begun
    assert moved.cursor == begun.cursor if job_by_job else moved.cursor > begun.cursor
    with pytest.raises(TakenOver):
        Rebuilder(store, task_slice()).from_archive(begun)
    rebuilt(store)
    assert store.rebuilds.state() is None


def in_sevens(archive: Callable[..., Any]) -> Callable[..., Any]:
    return lambda after: archive(after, 7)


async def test_several_processes_fold_the_archive(rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_job, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(by_job, "cores", lambda: 2)
    processes = []
    start = subprocess.Popen

    def started(*args: Any, **options: Any) -> Any:
        processes.append(start(*args, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    async with rig.projector(store), rig.worker(jobs.add, concurrency=10):
        ids = await some_jobs(rig, 20)
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
        before, sums = [store.job(job_id) for job_id in ids], numbers(store)
        await asyncio.to_thread(rebuilt, store)
        assert [store.job(job_id) for job_id in ids] == before
        assert numbers(store) == sums
        assert [process.returncode is None for process in processes] == [False, False]


async def test_death_of_a_folding_process_is_retried(rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_job, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(by_job, "cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", "/bin/true")
    async with rig.projector(store), rig.worker(jobs.add, concurrency=10):
        ids = await some_jobs(rig, 2)
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
    begun = store.rebuilds.begin("a", by_job=True)
    with pytest.raises(ViewUnavailable) as raised:
        Rebuilder(store, task_slice()).from_archive(begun)
    assert rebuild.retry.retry_after(raised.value) == POLICY
    assert store.rebuilds.state() == begun


async def test_messages_that_became_readable_are_folded_in_order(rig: Rig, store: Store) -> None:
    """Such a message belongs to a job, which is not known from its row."""
    async with rig.projector(store), rig.worker(jobs.add):
        ids = await some_jobs(rig, 3)
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
        before = [store.job(job_id) for job_id in ids]
        make_unreadable(store, ids[1])
        state = Rebuilder(store, task_slice()).from_archive(store.rebuilds.begin("a", by_job=True))
        assert store.rebuilds.known(state, ids) == dict(zip(ids, before, strict=True))


def make_unreadable(store: Store, job_id: str) -> None:
    """Make the view as it is when an older version could not read the events of the job."""
    from sqlalchemy import text

    values = [{"cursor": row.cursor, "body": row.event.encode()} for row in store.history(job_id)]
    with store._database.writing() as connection:
        connection.execute(text("INSERT INTO unreadable VALUES (:cursor, 'of the future', :body)"), values)
        for table, column in (("history", "job_id"), ("jobs", "id")):
            connection.execute(text(f"DELETE FROM {table} WHERE {column} = :id"), {"id": job_id})


async def test_differences_report_changed_fold_rules(rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changed ``evolve`` makes ``cancelled`` of ``failed``."""
    async with rig.projector(store), rig.worker(jobs.add, jobs.boom, concurrency=10):
        ids = [await rig.submit("boom"), *await some_jobs(rig, 3)]
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
    plain = fold.evolve

    def stricter(job: Job | None, event: JobEvent, cursor: int = 0) -> Job:
        from dataclasses import replace

        from jobtape.schemas.job import JobState

        after = plain(job, event, cursor)
        return replace(after, state=JobState.CANCELLED) if after.state is JobState.FAILED else after

    monkeypatch.setattr("jobtape.consumer.folding.evolve", stricter)
    working = Rebuilder(store, task_slice())
    state = working.from_archive(store.rebuilds.begin("new rules", by_job=True))
    found = working.differences(state, 5)
    assert (found.changed, found.states) == (
        1,
        [
            {"serving": "failed", "rebuilt": "cancelled", "jobs": 1, "changed": 1},
            {"serving": "succeeded", "rebuilt": "succeeded", "jobs": 3, "changed": 0},
        ],
    )
    pair = {"serving": "failed", "rebuilt": "cancelled"}
    assert found.examples == [{"job": ids[0], **pair, "fields": {"state": ["failed", "cancelled"]}}]
    working.switch(state)
    job = store.job(ids[0])
    assert job is not None
    assert job.state == "cancelled"


async def test_switch_whose_answer_was_lost_is_recognised(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig.projector(store), rig.worker(jobs.add, concurrency=10):
        ids = await some_jobs(rig, 3)
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
    switch = store.rebuilds.switch

    def unanswered(*arguments: Any) -> None:
        assert switch(*arguments) is not None
        raise ViewUnavailable("the connection was lost")

    def busy() -> None:
        raise ViewUnavailable("the old tables are locked")

    working = Rebuilder(store, task_slice())
    state = working.from_archive(store.rebuilds.begin("a"))
    monkeypatch.setattr(store.rebuilds, "switch", unanswered)
    monkeypatch.setattr(store.rebuilds, "clean_up", busy)
    assert working.switch(state) == state
    assert store.rebuilds.has_switched(state)
    monkeypatch.undo()
    rebuilt(store, "b")


async def test_comparison_with_tables_of_another_rebuild_raises(rig: Rig, store: Store) -> None:
    async with rig.projector(store), rig.worker(jobs.add, concurrency=10):
        ids = await some_jobs(rig, 3)
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
    working = Rebuilder(store, task_slice())
    first = working.from_archive(store.rebuilds.begin("a"))
    second = store.rebuilds.begin("b")
    with pytest.raises(RebuildAbandoned):
        working.differences(first, 5)
    with pytest.raises(RebuildAbandoned) as raised:
        working.switch(first)
    assert rebuild.retry.retry_after(raised.value) != POLICY, (
        "otherwise the two rebuilds would replace each other forever"
    )
    assert store.rebuilds.state() == second
    assert len(store.list_jobs(JobQuery())) == 3


async def test_comparison_continues_across_slices(rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig.projector(store), rig.worker(jobs.add, concurrency=10):
        ids = await some_jobs(rig, 3)
        await eventually(lambda: all((job := store.job(job_id)) and job.final for job_id in ids))
    monkeypatch.setattr(comparing, "MOST_JOBS", 1)
    state = Rebuilder(store, task_slice()).from_archive(store.rebuilds.begin("a"))
    for _ in ids:
        with pytest.raises(Interrupted):
            Rebuilder(store, task_slice(seconds=-1)).differences(state, 5)
    assert Rebuilder(store, task_slice(seconds=-1)).differences(state, 5).compared == 3


def test_number_of_examples_is_limited() -> None:
    assert rebuild.payload(examples=100)["examples"] == 100
    for n in (-1, 101):
        with pytest.raises(PayloadInvalid):
            rebuild.payload(examples=n)
