"""The projector: the view equals the fold of the tape, and one projector is active. On both databases."""

import asyncio
import logging
import threading
from typing import Any

import aio_pika
import pytest

from jobtape.consumer.projector.services import ProjectorServices
from jobtape.schemas.events import encode
from jobtape.schemas.topology import EVENT_KEY
from jobtape.view import projection
from jobtape.view.fold_session import FoldSession
from jobtape.view.store import FoldedBatch, JobQuery, Store
from tests.checker import Checker
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.ledger import Ledger
from tests.waiting import LIMIT, eventually, within

pytestmark = pytest.mark.anyio


async def publish_raw(rig: Rig, body: bytes, key: str) -> None:
    """Publish any message to the tape."""
    channel = await (await rig.link.connection()).channel()
    async with channel:
        exchange = await channel.get_exchange(rig.topology.events.name, ensure=False)
        await exchange.publish(aio_pika.Message(body), key)


async def submit_all(rig: Rig, ledger: Ledger, n: int) -> None:
    """Submit ``n`` additions at once."""
    events = [order_event(rig.topology, "add", {"x": i, "y": i}) for i in range(n)]
    await asyncio.gather(*(ledger.submit(rig.publisher, event) for event in events))


async def test_view_equals_the_fold_of_the_tape(rig: Rig, store: Store) -> None:
    ledger = Ledger()
    everything = (jobs.add, jobs.boom, jobs.steps, jobs.nulls)
    async with rig.projector(store), rig.worker(*everything, concurrency=10):
        await submit_all(rig, ledger, 200)
        for job_type, payload in (("boom", {}), ("steps", {"n": 3, "pause": 0.1}), ("add", {"x": None})):
            event = order_event(rig.topology, job_type, payload, labels={"kind": "odd"}, correlation_id="c")
            await ledger.submit(rig.publisher, event)
            await rig.publisher.publish(event)  # a repeat without work
        await asyncio.gather(*(rig.outcome(job_id) for job_id in ledger.ok))
        report = await Checker(rig.url, rig.topology).check(store, ledger)
    assert not report.problems, str(report)
    assert (report.jobs, report.executions) == (203, 203)


async def test_projector_continues_where_another_has_stopped(rig: Rig, store: Store) -> None:
    ledger = Ledger()
    checker = Checker(rig.url, rig.topology)
    async with rig.worker(jobs.add, concurrency=10):
        for owner in ("a", "b", "c"):
            async with rig.projector(store, owner=owner):
                await submit_all(rig, ledger, 60)
            await submit_all(rig, ledger, 60)
        async with rig.projector(store, owner="d"):
            await asyncio.gather(*(rig.outcome(job_id) for job_id in ledger.ok))
            report = await checker.check(store, ledger)
    assert not report.problems, str(report)
    assert (report.jobs, report.repeated) == (360, 0)


async def test_barriers_are_recorded_and_unreadable_messages_are_kept(rig: Rig, store: Store) -> None:
    future = encode(order_event(rig.topology, "add")).replace(b'"schemaversion":2', b'"schemaversion":9')
    async with rig.projector(store):
        for body in (b"\x00\xff", b"[]", future, b"x" * 200_000):
            await publish_raw(rig, body, EVENT_KEY)
        await publish_raw(rig, b"nothing", "barrier")
        await rig.publisher.publish_barrier("me", 1)
        await rig.publisher.publish_barrier("me", 2)
        await eventually(lambda: store.passed_barrier("me") == 2)
        assert [row.body for row in store.unreadable()][2:] == [future, b"x" * 200_000, b"nothing"]
        report = await Checker(rig.url, rig.topology).check(store)
    assert len(store.unreadable()) == 5
    # The checker counts the invalid barrier as a barrier, and the view has it as unreadable.
    assert [problem for problem in report.problems if "is not on the tape" not in problem] == []
    assert report.jobs == 0


async def test_second_projector_stands_by_and_takes_over(
    rig: Rig, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobtape.consumer.projector.projector")
    ledger = Ledger()
    async with rig.projector(store, owner="first", lease=30.0):
        await submit_all(rig, ledger, 20)
        async with rig.projector(store, owner="stand-by", lease=30.0) as standing_by:
            checkpoint = await asyncio.to_thread(store.checkpoint)
            assert checkpoint is not None
            assert checkpoint.owner == "first"
            assert standing_by.fault is None
            await submit_all(rig, ledger, 20)
            assert caplog.text.count("folding the tape") == 1, "the second one does not read"
            rig.stop("first")
            with within(5):
                await eventually(lambda: owner_is(store, "stand-by"), what="the second one takes over")
            await submit_all(rig, ledger, 20)
            marker = await Checker(rig.url, rig.topology).read()
            await eventually(lambda: store.passed_barrier(marker) == 1)
    assert len(store.history()) == 60


async def test_projector_frozen_beyond_its_lease_writes_nothing(
    rig: Rig, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is frozen between reading the tape and writing the view."""
    # As in another process. A store has one connection to fold on, which the frozen one keeps.
    others = Store(database_url)
    ledger = Ledger()
    frozen, thaw = threading.Event(), threading.Event()
    results: list[bool] = []
    real = FoldSession.commit

    def commit(self: FoldSession, owner: str, *rest: Any) -> bool:
        if owner == "frozen" and armed.is_set() and not frozen.is_set():
            frozen.set()
            thaw.wait(LIMIT)
        done = real(self, owner, *rest)
        if owner == "frozen" and frozen.is_set():
            results.append(done)
        return done

    armed = threading.Event()
    monkeypatch.setattr(FoldSession, "commit", commit)
    # Their barriers would move the checkpoint of the other projector at any time.
    monkeypatch.setattr(ProjectorServices, "start", lambda self: None)
    async with rig.projector(store, owner="frozen", lease=1.5), rig.projector(others, owner="other", lease=1.5):
        assert owner_is(store, "frozen"), "the first one started is the active one"
        armed.set()
        await submit_all(rig, ledger, 50)
        await eventually(frozen.is_set)
        await eventually(lambda: owner_is(store, "other"), what="the other takes over")
        marker = await Checker(rig.url, rig.topology).read()
        await eventually(lambda: store.passed_barrier(marker) == 1)
        before = store.checkpoint()
        thaw.set()
        await eventually(lambda: results)
        assert results[0] is False
        after = store.checkpoint()
        assert before is not None
        assert after is not None
        assert (before.offset, before.owner) == (after.offset, after.owner)
    others.close()
    assert len(store.history()) == 50


async def test_batch_is_written_completely_or_not_at_all(
    rig: Rig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit fails before the rows are written, the second one after."""
    ledger = Ledger()
    real = projection.write
    failures = iter(["before", "after"])

    def write(connection: Any, batch: FoldedBatch) -> None:
        when = next(failures, None)
        if when == "before":
            raise OSError("before the rows")
        real(connection, batch)
        if when == "after":
            raise OSError("after the rows")

    async with rig.projector(store) as projector:
        await eventually(lambda: owner_is(store, "p1"))
        monkeypatch.setattr(projection, "write", write)
        await submit_all(rig, ledger, 50)
        await eventually(lambda: len(store.history()) == 50)
        await eventually(lambda: projector.fault is None)
    assert next(failures, None) is None, "both failures happened"
    assert len(store.list_jobs(JobQuery(limit=1000))) == 50


def owner_is(store: Store, owner: str) -> bool:
    """Return whether ``owner`` is the active projector."""
    checkpoint = store.checkpoint()
    return checkpoint is not None and checkpoint.owner == owner
