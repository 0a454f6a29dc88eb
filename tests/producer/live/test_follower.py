"""A follower reads the buffer, or the view when the buffer has no room: each event once, in order."""

import random
from collections.abc import AsyncIterator

import pytest

from jobtape.producer.live.event_buffer import EventBuffer
from jobtape.producer.live.follower import Follower, Reset, StartPosition
from jobtape.producer.live.tail import BUSY, LONGEST, SHARE, HistoryTail, next_pause
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import JobEvent
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import CommittedEvent, Store
from tests.view.samples import begin, folded, record, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

SOME = Selection(events=frozenset({"succeeded"}))


@pytest.fixture
async def reads() -> AsyncIterator[ViewCalls]:
    opened = ViewCalls("test", threads=2, limit=10)
    yield opened
    await opened.close()


def entries(*tape: JobEvent, first: int = 0) -> list[CommittedEvent]:
    return [
        CommittedEvent(row.cursor, row.job_id, row.name, row.time, row.event, row.state, "add", None, None, {})
        for row in folded(tape, first=first).history
    ]


def test_buffer_is_limited_by_count_and_bytes() -> None:
    buffer = EventBuffer(max_entries=10, max_bytes=100_000)
    buffer.begin(cursor_of(1, 0) - 1)
    buffer.add(entries(*(submitted(n) for n in range(25))))
    assert (len(buffer), buffer.floor) == (10, cursor_of(1, 14))
    assert [entry.cursor for entry in buffer.after(cursor_of(1, 22))] == [cursor_of(1, 23), cursor_of(1, 24)]
    buffer.add(entries(submitted(25, payload={"text": "x" * 40_000}), first=25))
    assert buffer.bytes <= 100_000
    assert len(buffer) >= 1
    buffer.add(entries(submitted(26, payload={"text": "x" * 90_000}), first=26))
    assert (len(buffer), buffer.bytes, buffer.floor) == (0, 0, cursor_of(1, 26))
    assert list(buffer.after(buffer.floor)) == []


async def test_buffer_is_empty_without_listeners(view: Store, reads: ViewCalls) -> None:
    begin(view)
    tail = HistoryTail(view, reads)
    with tail.held():
        assert await tail.begun(10)
        record(view, submitted(0), submitted(1))
        await eventually(lambda: len(tail.buffer) == 2)
        with tail.held():
            pass
        assert len(tail.buffer) == 2, "one listener is left"
    assert len(tail.buffer) == 0
    with tail.held():
        assert await tail.begun(10)
        record(view, submitted(2))
        await eventually(lambda: [entry.cursor for entry in tail.buffer.after(tail.buffer.floor)] == [cursor_of(1, 2)])
    await tail.close()


def test_pause_grows_with_read_time() -> None:
    assert next_pause(0.2, 0.0) == BUSY
    assert next_pause(0.02, 0.001) == pytest.approx(SHARE * 0.001)
    assert next_pause(0.02, 5.0) == LONGEST
    pause = BUSY
    for _ in range(20):
        pause = next_pause(pause, None)
    assert pause == LONGEST, "nothing comes"


@pytest.mark.parametrize("selection", [Selection(), SOME], ids=["all", "some"])
@pytest.mark.parametrize("room", [1, 7, 5000])
async def test_follower_returns_each_event_once_in_order(
    view: Store, reads: ViewCalls, selection: Selection, room: int
) -> None:
    chance = random.Random(room)
    begin(view)
    tail = HistoryTail(view, reads, buffer=EventBuffer(max_entries=room))
    tape: list[JobEvent] = []
    received: dict[Follower, list[int]] = {}
    with tail.held():
        for n in range(40):
            if n % 10 == 0:
                follower = Follower(tail, view.committed, reads, selection)
                await follower.begin(StartPosition.FIRST)
                received[follower] = []
            for _ in range(chance.randint(0, 3)):
                order = submitted(len(tape))
                tape += [order, succeeded(order)]
                record(view, order, succeeded(order))
            for each, delivered in received.items():
                if chance.random() < 0.5:
                    delivered.extend(await cursors(each, 0.02))
        history = [row.cursor for row in view.history(limit=10_000) if row.name in (selection.events or {row.name})]
        for each, delivered in received.items():
            while len(delivered) < len(history):
                more = await cursors(each, 10)
                assert more, "nothing comes"
                delivered.extend(more)
            assert delivered == history
    await tail.close()


async def cursors(follower: Follower, timeout: float) -> list[int]:
    found = await follower.next(timeout)
    assert not isinstance(found, Reset)
    return [entry.cursor for entry in found]
