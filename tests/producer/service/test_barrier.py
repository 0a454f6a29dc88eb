"""Barriers that the requests of a process share, on a tape that only counts."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from jobtape.producer.service import barrier
from jobtape.producer.service.barrier import Barrier, SharedBarrier
from jobtape.producer.service.errors import TooBusy, ViewBehind
from jobtape.schemas import ids
from jobtape.schemas.errors import BrokerUnavailable, ViewUnavailable
from tests.waiting import eventually, within

pytestmark = pytest.mark.anyio


class Tape:
    """Takes barriers while ``open``. The view has passed ``passed`` of them."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.open = asyncio.Event()
        self.open.set()
        self.passed = 0
        self.polls = 0

    async def publish(self, _: str, number: int, timeout: float) -> None:
        assert number == len(self.begun) + 1
        self.begun.append(time.monotonic())
        await asyncio.wait_for(self.open.wait(), timeout)

    async def fold(self, _: str) -> int:
        self.polls += 1
        return self.passed


def shared_barrier(tape: Tape, *, timeout: float) -> SharedBarrier:
    return SharedBarrier(Barrier("test", tape.publish, tape.fold), timeout=timeout)


async def test_wait_joins_no_barrier_whose_publish_has_begun() -> None:
    tape = Tape()
    tape.open.clear()
    shared = shared_barrier(tape, timeout=10)
    early = asyncio.create_task(shared.wait())
    await eventually(lambda: len(tape.begun) == 1)
    late = asyncio.create_task(shared.wait())
    tape.passed = 1
    tape.open.set()
    await early
    await eventually(lambda: len(tape.begun) == 2, what="a second barrier is published")
    assert not late.done()
    tape.passed = 2
    await late
    await shared.close()


async def test_wait_has_one_barrier_in_flight_and_one_for_all_others() -> None:
    tape = Tape()
    shared = shared_barrier(tape, timeout=10)
    first = asyncio.create_task(shared.wait())
    await eventually(lambda: tape.begun)
    others = [asyncio.create_task(shared.wait()) for _ in range(100)]
    polls = tape.polls
    await eventually(lambda: tape.polls > polls + 3)
    assert len(tape.begun) == 1  # however many wait
    tape.passed = 2
    await asyncio.gather(first, *others)
    assert len(tape.begun) == 2
    await shared.close()


async def test_wait_begins_at_most_twenty_barriers_a_second() -> None:
    tape = Tape()
    tape.passed = 10**6
    shared = shared_barrier(tape, timeout=10)
    for _ in range(5):
        await shared.wait()
    gaps = [after - before for before, after in zip(tape.begun, tape.begun[1:], strict=False)]
    assert min(gaps) >= barrier.MIN_INTERVAL * 0.98
    await shared.close()


async def test_wait_raises_view_behind_after_the_timeout() -> None:
    tape = Tape()
    shared = shared_barrier(tape, timeout=0.2)
    with within(2), pytest.raises(ViewBehind):
        await shared.wait()
    tape.passed = 2
    await shared.wait()  # and the next one works again
    await shared.close()


async def test_wait_raises_too_busy_until_a_waiter_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrier, "MAX_WAITING", 3)
    tape = Tape()
    shared = shared_barrier(tape, timeout=10)
    waiting = [asyncio.create_task(shared.wait()) for _ in range(3)]
    await eventually(lambda: tape.begun)
    with pytest.raises(TooBusy):
        await shared.wait()
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    waiting[0] = asyncio.create_task(shared.wait())
    await eventually(lambda: shared._waiting == 3)
    tape.passed = 10
    await asyncio.gather(*waiting)
    await shared.close()


async def test_wait_raises_the_errors_of_broker_and_view() -> None:
    tape = Tape()

    async def no_broker(_: str, number: int, timeout: float) -> None:
        raise BrokerUnavailable("gone")

    async def no_view(_: str) -> int:
        raise ViewUnavailable("gone")

    with pytest.raises(ViewBehind, match="gone"):
        await SharedBarrier(Barrier("test", no_broker, tape.fold), timeout=5).wait()
    with pytest.raises(ViewUnavailable):
        await SharedBarrier(Barrier("test", tape.publish, no_view), timeout=5).wait()


async def test_close_ends_waiters_with_view_behind() -> None:
    tape = Tape()
    shared = shared_barrier(tape, timeout=5)
    waiting = [asyncio.create_task(shared.wait())]
    await eventually(lambda: tape.begun)
    await shared.close()
    with pytest.raises(ViewBehind):
        await waiting[0]


async def test_close_ends_waiters_of_the_barrier_that_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrier, "MIN_INTERVAL", 3600.0)
    tape = Tape()
    tape.passed = 1
    shared = shared_barrier(tape, timeout=3600)
    await shared.wait()
    waiting = asyncio.create_task(shared.wait())
    await eventually(lambda: shared._waiting == 1)
    await shared.close()
    with pytest.raises(ViewBehind, match="this process stops"):
        await asyncio.wait_for(waiting, 10)


async def test_unexpected_error_is_in_the_answer_and_the_next_barrier_works() -> None:
    tape = Tape()
    tape.passed = 2
    broken = [True]

    async def fold(process: str) -> int:
        if broken:
            raise TypeError(f"broken {broken.pop()}")
        return await tape.fold(process)

    shared = SharedBarrier(Barrier("test", tape.publish, fold), timeout=3600)
    with pytest.raises(ViewBehind, match="broken True"):
        await shared.wait()
    await shared.wait()
    await shared.close()


def id_of(age: timedelta) -> str:
    return ids.first_id_at(datetime.now(UTC) - age)


async def test_covers_ids_that_are_older_than_the_last_barrier() -> None:
    tape = Tape()
    tape.passed = 1
    shared = shared_barrier(tape, timeout=5)
    not_v7 = str(UUID("1fb07157-aba0-48ee-9ae0-01a8182d316c"))
    old, recent, future = id_of(timedelta(minutes=6)), id_of(timedelta(minutes=4)), id_of(timedelta(days=-1))
    assert not any(shared.covers(job_id) for job_id in (not_v7, old, recent, future))
    await shared.wait()
    assert shared.covers(not_v7)
    assert shared.covers(old)
    assert not shared.covers(recent)
    assert not shared.covers(future)
    await shared.close()


async def test_covers_no_new_id_after_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape()
    tape.passed = 1
    shared = shared_barrier(tape, timeout=5)
    await shared.wait()

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(hours=1)

    monkeypatch.setattr(barrier, "datetime", SetBack)
    assert not shared.covers(id_of(timedelta(hours=1)))
    assert shared.covers(id_of(timedelta(hours=1, minutes=6)))
    await shared.close()
