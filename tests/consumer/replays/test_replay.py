"""Replays to a queue: marked, in order, each event once without a failure, and no job runs again."""

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
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.messages.delivered_event import decode_delivered
from jobtape.schemas.messages.replay_request import ReplayRequest, reason_to_refuse
from jobtape.view.store import Store
from tests.consumer.installation import Rig
from tests.view.samples import record, submitted, succeeded

pytestmark = pytest.mark.anyio
ALL = Selection()


@pytest.fixture
def filled(store: Store) -> Store:
    """A view with ten jobs with ``reply_to``, of which five have succeeded."""
    assert store.create_checkpoint()
    assert store.take_lease("me", 60)
    tape: list[Any] = [submitted(n, reply_to="me", labels={"n": str(n)}) for n in range(10)]
    record(store, *tape, *(succeeded(event, event.subject) for event in tape[:5]))
    return store


@pytest.fixture
async def queue(rig: Rig) -> AsyncIterator[aio_pika.abc.AbstractQueue]:
    """A queue to replay to."""
    channel = await (await rig.link.connection()).channel()
    made = await channel.declare_queue(f"test-{uuid4().hex}", durable=True)
    yield made
    await made.delete(if_unused=False, if_empty=False)


async def taken(queue: aio_pika.abc.AbstractQueue) -> list[aio_pika.abc.AbstractIncomingMessage]:
    found = []
    while (message := await queue.get(fail=False, no_ack=True)) is not None:
        found.append(message)
    return found


def task_slice(seconds: float = 60.0) -> TaskSlice:
    return TaskSlice(lambda fraction, words: None, time.monotonic() + seconds, "events")


async def test_replay_publishes_events_as_subscribers_got_them(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue
) -> None:
    head = filled.committed.reach().head
    await rig.read_to_end()
    before = (len(rig.events), await rig.depth(), filled.history())
    assert await replay_to_queue(rig.url, filled, Replay("r", queue.name, 0, head, ALL), task_slice()) == 15
    messages = await taken(queue)
    received = [decode_delivered(message.body) for message in messages]
    assert [each.cursor for each in received] == [row.cursor for row in filled.history()]
    assert [message.message_id for message in messages] == [row.event_id for row in filled.history()]
    assert {message.headers[MARK] for message in messages} == {"r/1"}
    assert all("CC" not in message.headers and "BCC" not in message.headers for message in messages)
    await rig.read_to_end()
    assert (len(rig.events), await rig.depth(), filled.history()) == before


async def test_replay_publishes_the_selected_events(rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue) -> None:
    rows = filled.history()
    done = Selection(events=frozenset({"succeeded"}))
    wanted = Replay("r", queue.name, rows[10].cursor, rows[12].cursor, done)
    assert await replay_to_queue(rig.url, filled, wanted, task_slice()) == 2
    assert [message.message_id for message in await taken(queue)] == [row.event_id for row in rows[11:13]]


async def test_interrupted_replay_continues(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 4)
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL)
    with pytest.raises(Interrupted):
        await replay_to_queue(rig.url, filled, wanted, task_slice(seconds=-1))
    assert await replay_to_queue(rig.url, filled, wanted, task_slice()) == 15
    ids = [message.message_id for message in await taken(queue)]
    assert ids == [row.event_id for row in filled.history()]


async def test_complete_replay_publishes_again_only_in_a_new_run(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue
) -> None:
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL)
    assert await replay_to_queue(rig.url, filled, wanted, task_slice()) == 15
    assert await replay_to_queue(rig.url, filled, wanted, task_slice()) == 15
    assert len(await taken(queue)) == 15
    assert await replay_to_queue(rig.url, filled, replace(wanted, run=2), task_slice()) == 15
    assert {message.headers[MARK] for message in await taken(queue)} == {"r/2"}


async def test_new_run_continues_an_incomplete_replay(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 4)
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL)
    with pytest.raises(Interrupted):
        await replay_to_queue(rig.url, filled, wanted, task_slice(seconds=-1))
    began = filled.tasks.begin("r", {})
    assert began is not None
    assert await replay_to_queue(rig.url, filled, replace(wanted, run=2), task_slice()) == 15
    assert [message.message_id for message in await taken(queue)] == [row.event_id for row in filled.history()]
    assert not filled.tasks.move("r", began, {**began, "events": 0})


async def test_progress_ends_at_one(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 5)
    delivered: list[float] = []
    reporting = TaskSlice(lambda fraction, words: delivered.append(round(fraction, 2)), time.monotonic() + 60, "events")
    await replay_to_queue(rig.url, filled, Replay("r", queue.name, 0, filled.committed.reach().head, ALL), reporting)
    assert delivered == [0.33, 0.67, 1.0]


async def test_slow_rate_is_interrupted_and_holds_in_the_next_slice(
    rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHECK_EVERY", 0.05)
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL, rate=0.01)
    for _ in range(2):
        with pytest.raises(Interrupted):
            await replay_to_queue(rig.url, filled, wanted, task_slice(seconds=0.3))
    assert len(await taken(queue)) == 1


async def test_rate_holds_from_the_first_event(rig: Rig, filled: Store, queue: aio_pika.abc.AbstractQueue) -> None:
    began = time.monotonic()
    wanted = Replay("r", queue.name, 0, filled.committed.reach().head, ALL, rate=20)
    assert await replay_to_queue(rig.url, filled, wanted, task_slice()) == 15
    assert time.monotonic() - began >= 0.5, "three pages of five, a quarter of a second apart"


async def test_missing_queue_raises(rig: Rig, filled: Store) -> None:
    wanted = Replay("r", f"nothing-{uuid4().hex}", 0, filled.committed.reach().head, ALL)
    with pytest.raises(QueueGone, match="declare it"):
        await replay_to_queue(rig.url, filled, wanted, task_slice())


def test_own_queues_are_refused() -> None:
    assert reason_to_refuse("ns.run.default", "ns") is not None
    assert reason_to_refuse("ns.log", "ns") is not None
    assert reason_to_refuse("ns.sub.billing", "ns") is None
    assert reason_to_refuse("audit", "ns") is None


def test_times_of_a_request_become_cursors(filled: Store) -> None:
    rows = filled.history()
    head = rows[-1].cursor
    whole = ReplayRequest(queue="q")
    assert whole.cursors(filled.committed.before, head) == (0, head)
    since = ReplayRequest(queue="q", since=rows[10].time, until=rows[-1].cursor + 99)
    assert since.cursors(filled.committed.before, head) == (rows[9].cursor, head)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": 0.0001}, "rate"),
        ({"since": 7, "until": 0}, "after until"),
        ({"since": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"}, "after until"),
    ],
    ids=["no rate", "tiny rate", "cursors", "times"],
)
def test_invalid_request_is_refused(request_: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        ReplayRequest.model_validate({"queue": "q", **request_})
