"""The rules of barriers, on a tape that only counts."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from jobtape.producer.service import barrier
from jobtape.producer.service.barrier import Barriers
from jobtape.producer.service.errors import TooBusy, ViewBehind
from jobtape.schemas import ids
from jobtape.schemas.errors import BrokerUnavailable, ViewUnavailable
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


class Tape:
    """Takes barriers while ``open``; has folded up to ``passed``."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.open = asyncio.Event()
        self.open.set()
        self.passed = 0
        self.polls = 0

    async def publish(self, seq: int, timeout: float) -> None:
        assert seq == len(self.begun) + 1
        self.begun.append(time.monotonic())
        await asyncio.wait_for(self.open.wait(), timeout)

    async def fold(self) -> int:
        self.polls += 1
        return self.passed


async def test_nobody_joins_a_barrier_whose_publish_had_begun() -> None:
    tape = Tape()
    tape.open.clear()
    barriers = Barriers(tape.publish, tape.fold, timeout=10)
    early = asyncio.create_task(barriers.wait())
    await eventually(lambda: len(tape.begun) == 1)
    late = asyncio.create_task(barriers.wait())
    tape.passed = 1
    tape.open.set()
    await early
    await eventually(lambda: len(tape.begun) == 2, what="a second barrier is published")
    assert not late.done()
    tape.passed = 2
    await late
    await barriers.close()


async def test_one_in_flight_and_one_that_all_others_wait_for() -> None:
    tape = Tape()
    barriers = Barriers(tape.publish, tape.fold, timeout=10)
    first = asyncio.create_task(barriers.wait())
    await eventually(lambda: tape.begun)
    others = [asyncio.create_task(barriers.wait()) for _ in range(100)]
    polls = tape.polls
    await eventually(lambda: tape.polls > polls + 3)
    assert len(tape.begun) == 1  # however many wait
    tape.passed = 2
    await asyncio.gather(first, *others)
    assert len(tape.begun) == 2
    await barriers.close()


async def test_at_most_twenty_a_second() -> None:
    tape = Tape()
    tape.passed = 10**6
    barriers = Barriers(tape.publish, tape.fold, timeout=10)
    for _ in range(5):
        await barriers.wait()
    gaps = [after - before for before, after in zip(tape.begun, tape.begun[1:], strict=False)]
    assert min(gaps) >= barrier.MIN_INTERVAL * 0.98
    await barriers.close()


async def test_not_in_time() -> None:
    tape = Tape()
    barriers = Barriers(tape.publish, tape.fold, timeout=0.2)
    begun = time.monotonic()
    with pytest.raises(ViewBehind):
        await barriers.wait()
    assert time.monotonic() - begun < 2
    tape.passed = 2
    await barriers.wait()  # and the next one works again
    await barriers.close()


async def test_waiters_are_bounded_and_those_who_leave_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrier, "MAX_WAITING", 3)
    tape = Tape()
    barriers = Barriers(tape.publish, tape.fold, timeout=10)
    waiting = [asyncio.create_task(barriers.wait()) for _ in range(3)]
    await eventually(lambda: tape.begun)
    with pytest.raises(TooBusy):
        await barriers.wait()
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    waiting[0] = asyncio.create_task(barriers.wait())
    await eventually(lambda: barriers._waiting == 3)
    tape.passed = 10
    await asyncio.gather(*waiting)
    await barriers.close()


async def test_faults_are_told_and_never_taken_for_passed() -> None:
    tape = Tape()

    async def no_broker(seq: int, timeout: float) -> None:
        raise BrokerUnavailable("gone")

    async def no_view() -> int:
        raise ViewUnavailable("gone")

    with pytest.raises(ViewBehind, match="gone"):
        await Barriers(no_broker, tape.fold, timeout=5).wait()
    with pytest.raises(ViewUnavailable):
        await Barriers(tape.publish, no_view, timeout=5).wait()


async def test_closing_is_not_passing() -> None:
    tape = Tape()
    barriers = Barriers(tape.publish, tape.fold, timeout=5)
    waiting = [asyncio.create_task(barriers.wait())]
    await eventually(lambda: tape.begun)
    await barriers.close()
    with pytest.raises(ViewBehind):
        await waiting[0]


def id_of(age: timedelta) -> str:
    return ids.first_id_at(datetime.now(UTC) - age)


async def test_what_is_settled() -> None:
    tape = Tape()
    tape.passed = 1
    barriers = Barriers(tape.publish, tape.fold, timeout=5)
    not_v7 = str(UUID("1fb07157-aba0-48ee-9ae0-01a8182d316c"))
    old, recent, future = id_of(timedelta(minutes=6)), id_of(timedelta(minutes=4)), id_of(timedelta(days=-1))
    assert not any(barriers.settled(job_id) for job_id in (not_v7, old, recent, future))
    await barriers.wait()
    assert barriers.settled(not_v7)
    assert barriers.settled(old)
    assert not barriers.settled(recent)
    assert not barriers.settled(future)
    await barriers.close()


async def test_a_clock_set_back_makes_no_new_id_look_old(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape()
    tape.passed = 1
    barriers = Barriers(tape.publish, tape.fold, timeout=5)
    await barriers.wait()

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(hours=1)

    monkeypatch.setattr(barrier, "datetime", SetBack)
    assert not barriers.settled(id_of(timedelta(hours=1)))
    assert barriers.settled(id_of(timedelta(hours=1, minutes=6)))
    await barriers.close()
