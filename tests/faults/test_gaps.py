"""Tests that a tape which is missing, was replaced or lost messages is a gap, until an operator accepts it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from jobtape.broker.stream_reader import StreamReader
from jobtape.cli.doctor.findings import Findings
from jobtape.cli.doctor.view import examine_view
from jobtape.consumer.projector import attachment
from jobtape.consumer.projector.projector import Projector
from jobtape.consumer.replays.tape_source import TapeOvertaken, read_tape
from jobtape.schemas.cursor import cursor_of, offset_of
from jobtape.schemas.topology import TapeRetention, Topology
from jobtape.view.fold_session import FoldSession
from jobtape.view.store import Checkpoint, Store
from tests.checker import Checker
from tests.consumer.installation import Rig, order_event
from tests.faults import jobs
from tests.faults.load import all_done, submit
from tests.faults.scale import on_database
from tests.ledger import Ledger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

TINY = TapeRetention(max_bytes=40_000, segment_bytes=10_000)


@pytest.fixture(autouse=True)
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a shorter time than for brokers under load."""
    monkeypatch.setattr(attachment, "SILENCE", 0.5)


async def gap_of(projector: Projector, store: Store, kind: str) -> str:
    """Wait until projector and view report the gap, and return its detail."""

    def detail() -> str | None:
        checkpoint = store.checkpoint()
        gap = None if checkpoint is None else checkpoint.gap
        return gap.detail if gap is not None and gap.kind == kind and projector.fault == gap.detail else None

    return await eventually(detail, what=f"a gap {kind}: {projector.fault}, {store.checkpoint()}")


async def check_folding(rig: Rig, checker: Checker, store: Store, ledger: Ledger, projector: Projector) -> None:
    """Check that new jobs end, and that the view equals the fold of both tapes."""
    await eventually(lambda: projector.fault is None, what="the projector folds again")
    await submit(rig, ledger, 20)
    await all_done(rig, ledger)
    checkpoint = store.checkpoint()
    assert checkpoint is not None
    assert checkpoint.gap is None
    report = await checker.check(store, ledger, epoch=checkpoint.epoch)
    assert not report.problems, str(report)


@pytest.mark.parametrize("accept_first", [True, False])
@on_database("postgresql")
async def test_deleted_tape_is_a_gap(rig: Rig, store: Store, accept_first: bool) -> None:
    ledger, checker = Ledger(), Checker(rig.url, rig.topology)
    async with rig.projector(store) as projector, rig.worker(jobs.add, jobs.nap):
        await submit(rig, ledger, 20)
        await all_done(rig, ledger)
        assert not (await checker.check(store, ledger)).problems
        await rig.delete_tape()
        detail = await gap_of(projector, store, "tape-missing")
        assert f"{rig.topology.log.name} is not on the broker" in detail
        if accept_first:
            store.accept_gap()
            await rig.create_tape()
        else:
            await rig.create_tape()
            assert "a new one" in await gap_of(projector, store, "tape-replaced")
            store.accept_gap()
        await check_folding(rig, checker, store, ledger, projector)
    checkpoint = store.checkpoint()
    assert checkpoint is not None
    assert checkpoint.epoch == 2


@pytest.mark.parametrize(("refill", "reason"), [(200, "is not the one that was folded"), (3, "it ends at offset")])
@on_database("sqlite")
async def test_tape_replaced_while_no_projector_runs_is_a_gap(rig: Rig, store: Store, refill: int, reason: str) -> None:
    """The new tape is longer than the checkpoint's offset, or shorter."""
    ledger, checker = Ledger(), Checker(rig.url, rig.topology)
    async with rig.worker(jobs.add, jobs.nap):
        async with rig.projector(store):
            await submit(rig, ledger, 20)
            await all_done(rig, ledger)
            assert not (await checker.check(store, ledger)).problems
        folded = len(store.history())
        await rig.delete_tape()
        await rig.create_tape()
        await submit(rig, ledger, refill)
        await all_done(rig, ledger)
        async with rig.projector(store, ready=False) as projector:
            assert reason in await gap_of(projector, store, "tape-replaced")
            assert len(store.history()) == folded >= 40, "nothing after the gap is folded"
            store.accept_gap()
            await check_folding(rig, checker, store, ledger, projector)


@asynccontextmanager
async def tiny_rig(broker_url: str, topology: Topology) -> AsyncIterator[Rig]:
    async with Rig(broker_url, replace(topology, retention=TINY)) as rig:
        yield rig


async def overrun(rig: Rig, beyond: int) -> None:
    """Publish events, without jobs on the work queues, until retention has dropped the message at ``beyond``."""
    first: int | None = None
    for _ in range(100):
        events = [order_event(rig.topology, "add", {"x": 1, "pad": "p" * 500}) for _ in range(50)]
        await asyncio.gather(*(rig.publisher.publish(event) for event in events))
        # None when the segment that it attached to is dropped at that moment, or on a machine under load.
        first = await _first(rig)
        if first is not None and first > beyond + 1:
            await _begin_a_segment(rig)
            return
    raise AssertionError(f"retention has dropped nothing after {first}")


async def _begin_a_segment(rig: Rig) -> None:
    """Publish until a segment has just begun, so that what the test publishes next drops no further segment."""
    await eventually(partial(_retention_is_idle, rig), what="retention is idle")
    before = await _first(rig)

    async def begins() -> bool:
        await rig.publisher.publish(order_event(rig.topology, "add", {"x": 1, "pad": "p" * 500}))
        now = await _first(rig)
        return now is not None and now != before

    await eventually(begins, what="a new segment begins, and an old one is dropped")
    await eventually(partial(_retention_is_idle, rig), what="retention is idle")


async def _retention_is_idle(rig: Rig) -> bool:
    """Return whether the first offset is stable. Retention drops one segment after the other."""
    return len({await _first(rig) for _ in range(10)}) == 1


async def _first(rig: Rig) -> int | None:
    async with StreamReader(await rig.link.connection(), rig.topology.log.name, "first") as reader:
        found = await reader.read(1, 5)
    return found[0].offset if found else None


@on_database("postgresql")
async def test_tape_truncated_while_no_projector_runs_is_a_gap(
    broker_url: str, topology: Topology, store: Store
) -> None:
    async with tiny_rig(broker_url, topology) as rig:
        ledger, checker = Ledger(), Checker(rig.url, rig.topology)
        async with rig.projector(store):
            for _ in range(5):
                await ledger.submit(rig.publisher, order_event(rig.topology, "add", {"x": 1, "y": 1}))
            marker = await checker.read()
            await eventually(lambda: store.passed_barrier(marker) == 1)
        checkpoint = store.checkpoint()
        assert checkpoint is not None
        assert checkpoint.offset is not None
        await overrun(rig, checkpoint.offset)
        async with rig.projector(store, owner="p2", ready=False) as projector:
            detail = await gap_of(projector, store, "tape-truncated")
            assert f"the view ends at {checkpoint.offset}" in detail
            assert len(store.history()) == 5
            marker = await checker.read()
            accepted = store.accept_gap()
            assert accepted.epoch == 1, "the same tape"
            await eventually(lambda: store.passed_barrier(marker) == 1)
            report = await checker.check(store)
    differences = [problem for problem in report.problems if not problem.startswith("stuck")]
    assert not differences, str(report)
    assert report.jobs > 5


@on_database("sqlite")
async def test_lost_database_is_folded_from_the_rest_of_the_tape(
    broker_url: str, topology: Topology, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with tiny_rig(broker_url, topology) as rig:
        early = await rig.submit("add", {"x": 1, "y": 1})
        await overrun(rig, 0)
        late = await rig.submit("add", {"x": 2, "y": 2})
        async with rig.projector(store):
            report = await Checker(rig.url, rig.topology).check(store)
    differences = [problem for problem in report.problems if not problem.startswith("stuck")]
    assert not differences, str(report)
    assert store.job(early) is None
    assert store.job(late) is not None
    horizon = store.committed.reach().horizon
    assert horizon == store.history()[0].cursor - 1 > cursor_of(1, 0)
    assert f"the tape begins at offset {offset_of(horizon) + 1}" in caplog.text
    doctor = Findings()
    examine_view(doctor, store)
    assert any(f"complete only after cursor {horizon}" in each.what for each in doctor.items)


async def test_retention_overtakes_an_interrupted_rebuild(broker_url: str, topology: Topology) -> None:
    async with tiny_rig(broker_url, topology) as rig:
        end = Checkpoint(1, 10_000, "", "me", 60.0, None)
        await rig.submit("add")
        await rig.submit("add")
        async with aclosing(read_tape(rig.url, rig.topology, cursor_of(1, 0), end)) as tape:
            assert [entry.cursor for entry in await anext(tape)] == [cursor_of(1, 1)]
        await overrun(rig, 0)
        async with aclosing(read_tape(rig.url, rig.topology, cursor_of(1, 0), end)) as tape:
            with pytest.raises(TapeOvertaken, match="start the rebuild again"):
                await anext(tape)
        async with aclosing(read_tape(rig.url, rig.topology, cursor_of(1, 0) - 1, end)) as tape:
            assert (await anext(tape))[0].cursor > cursor_of(1, 1), "a new rebuild starts with the rest of the tape"


@on_database("postgresql")
async def test_tape_truncated_before_a_slow_projector_is_a_gap(
    broker_url: str, topology: Topology, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The projector waits for its database while the broker drops messages that it has not read."""
    waiting, proceed = threading.Event(), threading.Event()
    real = FoldSession.commit

    def commit(self: FoldSession, *arguments: Any) -> bool:
        waiting.set()
        proceed.wait(60)
        return real(self, *arguments)

    async with tiny_rig(broker_url, topology) as rig:
        monkeypatch.setattr(FoldSession, "commit", commit)
        async with rig.projector(store) as projector:
            await rig.publisher.publish_barrier("before", 1)
            await eventually(waiting.is_set)
            await overrun(rig, 1500)
            proceed.set()
            detail = await gap_of(projector, store, "tape-truncated")
            assert "retention has dropped" in detail
            cursors = [row.cursor for row in store.history(limit=10_000)]
            assert cursors == list(range(cursors[0], cursors[0] + len(cursors))), (
                "nothing after the missing offsets is folded"
            )
            store.accept_gap()
            marker = await Checker(rig.url, rig.topology).read()
            await eventually(lambda: store.passed_barrier(marker) == 1, what="the projector continues after the gap")


@on_database("sqlite")
async def test_offset_steps_between_segments_are_no_gaps(broker_url: str, topology: Topology, store: Store) -> None:
    retention = TapeRetention(segment_bytes=10_000)
    async with Rig(broker_url, replace(topology, retention=retention)) as rig:
        ledger, checker = Ledger(), Checker(rig.url, rig.topology)
        async with rig.projector(store) as projector, rig.worker(jobs.add, jobs.nap, concurrency=10):
            for _ in range(5):
                await submit(rig, ledger, 60)
            await all_done(rig, ledger)
            report = await checker.check(store, ledger)
            assert projector.fault is None
    assert not report.problems, str(report)
