"""Past events to a queue: marked, in order, once where all goes well, and nothing runs again."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from pydantic import ValidationError

from jobtape.consumer.replays import replay as replay_module
from jobtape.consumer.replays.long_task import Interrupted, TaskSlice
from jobtape.consumer.replays.replay import MARK, QueueGone, Replay, replay_to_queue
from jobtape.schemas.delivered_event import decode_delivered
from jobtape.schemas.replay_order import ReplayOrder, reason_to_refuse
from jobtape.schemas.selection import Selection
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.view.samples import record, submitted, succeeded

pytestmark = pytest.mark.anyio
ALL = Selection()


@pytest.fixture
def filled(store: Store) -> Store:
    """Ten jobs, five of which succeeded, by events that ask for a reply."""
    assert store.create_checkpoint()
    assert store.take_lease("me", 60)
    tape: list[Any] = [submitted(n, reply_to="me", labels={"n": str(n)}) for n in range(10)]
    record(store, *tape, *(succeeded(event, event.subject) for event in tape[:5]))
    return store


@pytest.fixture
async def queue(rig: Rig) -> AsyncIterator[aio_pika.abc.AbstractQueue]:
    """A queue of somebody's own."""
    channel = await (await rig.link.connection()).channel()
    made = await channel.declare_queue(f"test-{uuid4().hex}", durable=True)
    yield made
    await made.delete(if_unused=False, if_empty=False)


async def taken(queue: aio_pika.abc.AbstractQueue) -> list[aio_pika.abc.AbstractIncomingMessage]:
    found = []
    while (message := await queue.get(fail=False, no_ack=True)) is not None:
        found.append(message)
    return found


def part(seconds: float = 60.0) -> TaskSlice:
    return TaskSlice(lambda fraction, words: None, time.monotonic() + seconds, "events")


async def test_events_come_as_they_were_told_and_nothing_else_happens(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue
) -> None:
    head = filled.committed.reach().head
    before = (len(rig.events), await rig.depth(), filled.history())
    assert await replay_to_queue(rig.url, filled, Replay("r", queue.name, 0, head, ALL), part()) == 15
    messages = await taken(queue)
    received = [decode_delivered(message.body) for message in messages]
    assert [each.cursor for each in received] == [row.cursor for row in filled.history()]
    assert [message.message_id for message in messages] == [row.event_id for row in filled.history()]
    assert {message.headers[MARK] for message in messages} == {"r/1"}
    assert all("CC" not in message.headers and "BCC" not in message.headers for message in messages)
    assert (len(rig.events), await rig.depth(), filled.history()) == before


async def test_a_part_of_them(rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue) -> None:
    rows = filled.history()
    done = Selection(events=frozenset({"succeeded"}))
    wanted = Replay("r", queue.name, rows[10].cursor, rows[12].cursor, done)
    assert await replay_to_queue(rig.url, filled, wanted, part()) == 2
    assert [message.message_id for message in await taken(queue)] == [row.event_id for row in rows[11:13]]


async def test_interrupted_it_goes_on(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 4)
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL)
    with pytest.raises(Interrupted):
        await replay_to_queue(rig.url, filled, wanted, part(seconds=-1))
    assert await replay_to_queue(rig.url, filled, wanted, part()) == 15
    ids = [message.message_id for message in await taken(queue)]
    assert ids == [row.event_id for row in filled.history()]


async def test_done_it_sends_nothing_again_and_in_another_run_all(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue
) -> None:
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL)
    assert await replay_to_queue(rig.url, filled, wanted, part()) == 15
    assert await replay_to_queue(rig.url, filled, wanted, part()) == 15
    assert len(await taken(queue)) == 15
    assert await replay_to_queue(rig.url, filled, replace(wanted, run=2), part()) == 15
    assert {message.headers[MARK] for message in await taken(queue)} == {"r/2"}


async def test_another_run_goes_on_where_the_first_was_and_takes_it_over(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 4)
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL)
    with pytest.raises(Interrupted):
        await replay_to_queue(rig.url, filled, wanted, part(seconds=-1))
    began = filled.tasks.begin("r", {})
    assert began is not None
    assert await replay_to_queue(rig.url, filled, replace(wanted, run=2), part()) == 15
    assert [message.message_id for message in await taken(queue)] == [row.event_id for row in filled.history()]
    assert not filled.tasks.move("r", began, {**began, "events": 0})


async def test_progress_begins_at_nothing_and_ends_at_all(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 5)
    delivered: list[float] = []
    told_to = TaskSlice(lambda fraction, words: delivered.append(round(fraction, 2)), time.monotonic() + 60, "events")
    await replay_to_queue(rig.url, filled, Replay("r", queue.name, 0, filled.committed.reach().head, ALL), told_to)
    assert delivered == [0.33, 0.67, 1.0]


async def test_a_slow_rate_ends_with_the_slice_and_holds_in_the_next(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "LOOK", 0.05)
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL, rate=0.01)
    for _ in range(2):
        with pytest.raises(Interrupted):
            await replay_to_queue(rig.url, filled, wanted, part(seconds=0.3))
    assert len(await taken(queue)) == 1


async def test_a_rate_holds_from_the_beginning(rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue) -> None:
    began = time.monotonic()
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL, rate=20)
    assert await replay_to_queue(rig.url, filled, wanted, part()) == 15
    assert time.monotonic() - began >= 0.5, "five, and five, and five, a quarter of a second apart"


async def test_a_queue_that_is_not_there(rig: Rig, filled: Store) -> None:
    wanted = Replay("r", f"nothing-{uuid4().hex}", 0, filled.committed.reach().head, ALL)
    with pytest.raises(QueueGone, match="declare it"):
        await replay_to_queue(rig.url, filled, wanted, part())


def test_none_of_our_own_queues() -> None:
    assert reason_to_refuse("ns.run.default", "ns") is not None
    assert reason_to_refuse("ns.log", "ns") is not None
    assert reason_to_refuse("ns.sub.billing", "ns") is None
    assert reason_to_refuse("audit", "ns") is None


def test_times_become_cursors_when_it_begins(filled: Store) -> None:
    rows = filled.history()
    head = rows[-1].cursor
    whole = ReplayOrder(queue="q")
    assert whole.cursors(filled.committed.before, head) == (0, head)
    since = ReplayOrder(queue="q", since=rows[10].time, until=rows[-1].cursor + 99)
    assert since.cursors(filled.committed.before, head) == (rows[9].cursor, head)


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": 0.0001}, "rate"),
        ({"since": 7, "until": 0}, "behind until"),
        ({"since": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"}, "behind until"),
    ],
    ids=["no rate", "hardly a rate", "cursors", "times"],
)
def test_what_makes_no_sense_is_refused(order: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        ReplayOrder.model_validate({"queue": "q", **order})
