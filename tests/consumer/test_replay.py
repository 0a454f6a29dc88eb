"""Past events to a queue: marked, in order, once where all goes well, and nothing runs again."""

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aio_pika
import pytest

from jobtape.consumer import replay as replay_module
from jobtape.consumer.replay import MARK, QueueGone, Replay, replay_to_queue
from jobtape.consumer.slices import Interrupted, Slice
from jobtape.schemas.heard import hear
from jobtape.schemas.replaying import ReplayOrder, refusal_of
from jobtape.schemas.selection import Selection
from jobtape.view.store import Store
from tests.consumer.rig import Rig
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


def part(seconds: float = 60.0) -> Slice:
    return Slice(lambda fraction, words: None, time.monotonic() + seconds, "events")


async def test_events_come_as_they_were_told_and_nothing_else_happens(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue
) -> None:
    head = filled.committed.reach().head
    before = (len(rig.events), await rig.depth(), filled.history())
    assert await replay_to_queue(rig.url, filled, Replay("r/1", queue.name, 0, head, ALL), part()) == 15
    messages = await taken(queue)
    heard = [hear(message.body) for message in messages]
    assert [each.cursor for each in heard] == [row.cursor for row in filled.history()]
    assert [message.message_id for message in messages] == [row.event_id for row in filled.history()]
    assert {message.headers[MARK] for message in messages} == {"r/1"}
    assert all("CC" not in message.headers and "BCC" not in message.headers for message in messages)
    assert (len(rig.events), await rig.depth(), filled.history()) == before


async def test_a_part_of_them(rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue) -> None:
    rows = filled.history()
    done = Selection(events=frozenset({"succeeded"}))
    wanted = Replay("r/1", queue.name, rows[10].cursor, rows[12].cursor, done)
    assert await replay_to_queue(rig.url, filled, wanted, part()) == 2
    assert [message.message_id for message in await taken(queue)] == [row.event_id for row in rows[11:13]]


async def test_interrupted_it_goes_on(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 4)
    wanted = Replay("r/1", queue.name, 0, filled.committed.reach().head, ALL)
    with pytest.raises(Interrupted):
        await replay_to_queue(rig.url, filled, wanted, part(seconds=-1))
    assert await replay_to_queue(rig.url, filled, wanted, part()) == 15
    ids = [message.message_id for message in await taken(queue)]
    assert ids == [row.event_id for row in filled.history()]


async def test_a_queue_that_is_not_there(rig: Rig, filled: Store) -> None:
    wanted = Replay("r/1", f"nothing-{uuid4().hex}", 0, filled.committed.reach().head, ALL)
    with pytest.raises(QueueGone, match="declare it"):
        await replay_to_queue(rig.url, filled, wanted, part())


def test_none_of_our_own_queues() -> None:
    assert refusal_of("ns.run.default", "ns") is not None
    assert refusal_of("ns.log", "ns") is not None
    assert refusal_of("ns.sub.billing", "ns") is None
    assert refusal_of("audit", "ns") is None


def test_times_become_cursors_when_it_begins(filled: Store) -> None:
    rows = filled.history()
    head = rows[-1].cursor
    whole = ReplayOrder(queue="q")
    assert whole.cursors(filled.committed.before, head) == (0, head)
    since = ReplayOrder(queue="q", since=rows[10].time, until=rows[-1].cursor + 99)
    assert since.cursors(filled.committed.before, head) == (rows[9].cursor, head)
