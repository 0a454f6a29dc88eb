"""Bulk redrives and cancellations: each job once, also when the process dies in the middle."""

import asyncio
import os
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobtape.builtin import job_types
from jobtape.consumer.replays import bulk as bulk_module
from jobtape.consumer.replays.bulk import CANCEL, REDRIVE, Bulk, run_bulk
from jobtape.consumer.replays.long_task import Interrupted, TaskSlice
from jobtape.consumer.worker.isolated.process import _descendants
from jobtape.schemas.events import Succeeded
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.filters.job_filter import CancelRequest, RedriveRequest
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import JobState
from jobtape.view.store import JobQuery, Store
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

MANY = 2000


def task_slice(seconds: float = 60.0) -> TaskSlice:
    return TaskSlice(lambda fraction, words: None, time.monotonic() + seconds, "jobs")


async def act(rig: Rig, store: Store, name: str, request: CancelRequest | RedriveRequest) -> tuple[int, int]:
    """Cancel or redrive, and return how many jobs matched, and on how many it took effect."""
    action = CANCEL if isinstance(request, CancelRequest) else REDRIVE
    wanted = Bulk(name, action, JobQuery.of(request, request.limit or 1000), "the request")
    state = await run_bulk(rig.url, rig.topology, store, wanted, task_slice())
    assert state["done"]
    return state["matched"], state["accepted"]


async def submit_many(rig: Rig, number: int, job_type: str = "add", **order: Any) -> list[str]:
    """Publish jobs to the tape only: no worker gets them."""
    events = [order_event(rig.topology, job_type, {"x": n, "y": 0}, **order) for n in range(number)]
    await asyncio.gather(*(rig.publisher.publish(event) for event in events))
    return [event.subject for event in events]


def states(store: Store) -> Counter[JobState]:
    return Counter(each.state for each in store.list_jobs(JobQuery(limit=10_000)))


@pytest.fixture
def environment(rig: Rig, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which the processes of built-in jobs read their settings."""
    for name, value in {
        "RABBITMQ_URL": rig.url,
        "DATABASE_URL": sqlite_url,
        "JOBTAPE_NAMESPACE": rig.topology.namespace,
    }.items():
        monkeypatch.setenv(name, value)


def processes_of_isolated_jobs() -> list[int]:
    found = []
    for pid in _descendants(os.getpid()):
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and b"isolated.child" in command.read_bytes():
            found.append(pid)
    return found


async def test_cancelling_many_jobs_survives_a_killed_process(rig: Rig, view: Store, environment: None) -> None:
    async with rig.projector(view):
        wanted = set(await submit_many(rig, MANY, labels={"batch": "1"}))
        (other,) = await submit_many(rig, 1)
        async with rig.worker(*job_types().values(), queues=["jobtape"]):
            bulk_job = await rig.submit("jobtape.cancel", {"labels": {"batch": "1"}}, queue="jobtape", max_attempts=9)
            await eventually(lambda: any(event.name == "cancelled" for event in rig.events), what="it has begun")
            for pid in processes_of_isolated_jobs():
                os.kill(pid, signal.SIGKILL)
            outcome = await rig.outcome(bulk_job)
        await eventually(lambda: (job := view.job(bulk_job)) is not None and job.final, what="the view has all of it")
    assert "retrying" in rig.names(bulk_job), "the process was killed before it was done"
    assert isinstance(outcome, Succeeded)
    assert outcome.data.result == {"matched": MANY, "accepted": MANY, "already": 0}
    ended = {each.id for each in view.list_jobs(JobQuery(states=[JobState.CANCELLED], limit=10_000))}
    assert ended == wanted
    found = view.job(other)
    assert found is not None
    assert found.state is JobState.QUEUED


async def test_bulk_continues_at_its_page_and_counts_each_job_once(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page whose events are published, but not counted, is published and counted again."""
    monkeypatch.setattr(bulk_module, "PAGE", 4)
    save, saved = store.tasks.move, 0

    def move(*arguments: Any) -> bool:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise Interrupted("before the first page was counted")
        return save(*arguments)

    monkeypatch.setattr(store.tasks, "move", move)
    async with rig.projector(store):
        ids = await submit_many(rig, 10)
        with pytest.raises(Interrupted):
            await act(rig, store, "b/1", CancelRequest())
        assert states(store)[JobState.CANCELLED] == 4
        assert await act(rig, store, "b/1", CancelRequest()) == (10, 10)
        assert await act(rig, store, "b/1", CancelRequest()) == (10, 10), "it is done"
    assert states(store) == {JobState.CANCELLED: 10}
    for each in ids:
        outcome = await rig.outcome(each)
        assert (outcome.name, outcome.causationid) == ("cancelled", "the request")


async def test_jobs_that_end_meanwhile_are_counted_apart(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job is cancelled and redriven between the choice of the page and the publishing of its events."""
    loop, choose = asyncio.get_running_loop(), store.search.runs

    async def in_between() -> None:
        await act(rig, store, "b/2", CancelRequest(ids=[ids[0]]))
        await act(rig, store, "b/3", RedriveRequest(ids=[ids[0]]))

    def runs(query: JobQuery) -> Any:
        found = choose(query)
        monkeypatch.setattr(store.search, "runs", choose)
        asyncio.run_coroutine_threadsafe(in_between(), loop).result()
        return found

    async with rig.projector(store):
        ids = await submit_many(rig, 3)
        monkeypatch.setattr(store.search, "runs", runs)
        assert await act(rig, store, "b/1", CancelRequest()) == (3, 2)
        first = store.job(ids[0])
        assert first is not None
        assert (first.run, first.final) == (2, False), "the new run goes on"


async def test_redrive_takes_what_matches_and_leaves_builtin_jobs(rig: Rig, store: Store) -> None:
    async def redriven(request: RedriveRequest) -> set[str]:
        """Redrive, and return the jobs that have ended once more."""
        before = {each.id: each.run for each in store.list_jobs(JobQuery())}
        matched, accepted = await act(rig, store, str(request), request)
        assert matched == accepted
        await eventually(lambda: all(each.final for each in store.list_jobs(JobQuery())))
        return {each.id for each in store.list_jobs(JobQuery()) if each.run > before[each.id]}

    builtin = order_event(rig.topology, "jobtape.rebuild")
    end = cancelled(evolve(None, builtin), source=rig.topology.source, time=datetime.now(UTC))
    async with rig.projector(store), rig.worker(jobs.boom, jobs.add):
        await rig.publisher.publish(builtin)
        await rig.publisher.publish(end)
        failed = [await rig.submit("boom", {"text": text}) for text in ("no disk", "no disk", "no net")]
        added = await rig.submit("add", {"x": 1, "y": 2})
        for job_id in (*failed, added):
            await rig.outcome(job_id)
        await eventually(lambda: [each.final for each in store.list_jobs(JobQuery())] == [True] * 5)
        assert await redriven(RedriveRequest(error="NO disk", limit=1)) == {failed[1]}
        assert await redriven(RedriveRequest(payload={"text": "no disk"})) == set(failed[:2])
        assert await redriven(RedriveRequest()) == set(failed)
        assert await redriven(RedriveRequest(ids=[failed[2], added, builtin.subject])) == {failed[2], added}
