"""Publishes past events to a queue, as subscribers got them, marked as replayed; no handler runs.

Each event is sent to the default exchange with new headers. A message of the tape sent on with its own headers
would place its work once more on RabbitMQ 4, where the tape keeps ``CC``.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import aiormq.exceptions

from jobtape.broker.confirmed_channel import ConfirmedChannel, publish_all
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.consumer.replays.long_task import TakenOver, TaskSlice
from jobtape.consumer.subscriber_message import SubscriberMessage, subscriber_message
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.selection import Selection
from jobtape.view.store import CommittedEvent, Store

PAGE: Final = 500
"""Events in flight at most."""
CONFIRM_LIMIT: Final = 10.0
CONNECT_LIMIT: Final = 15.0
LOOK: Final = 1.0
"""Seconds of waiting for the rate, after which it is looked whether the slice is over."""
LAG: Final = 1.0
"""Seconds by which a replay may be late and still make up for it."""
MARK: Final = "replayed"
"""The header, and the attribute of the event, that name the replay."""


class QueueGone(JobtapeError):
    """The queue to replay to is not there, or refuses."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Events of ``selection`` behind the cursor ``after``, up to and with ``until``, to ``queue``; ``rate``: so many a
    second at most. ``name`` is this replay's own. A higher ``run`` goes on with what an earlier one has left, and
    starts from the beginning when that had done all.
    """

    name: str
    queue: str
    after: int
    until: int
    selection: Selection
    rate: float | None = None
    run: int = 1


async def replay_to_queue(url: str, store: Store, replay: Replay, part: TaskSlice) -> int:
    """Send what was not confirmed before; how many events were sent in all.

    Raises QueueGone, BrokerUnavailable, ViewUnavailable; Interrupted when the slice is over, TakenOver; TimeoutError
    when there is no connection for ``CONNECT_LIMIT`` seconds.
    """
    link = Link(url, name=f"replay {replay.name}")
    link.start()
    try:
        return await _send_all(ConfirmedChannel(link, ""), store, replay, part)
    finally:
        await link.close()


async def _send_all(channel: ConfirmedChannel, store: Store, replay: Replay, part: TaskSlice) -> int:
    state = _begun(store, replay)
    # As they were when it began, not what the same words mean now.
    replay = replace(replay, after=state["after"], until=state["until"])
    before = int(state["events"])
    size = PAGE if replay.rate is None else max(1, min(PAGE, round(replay.rate / 4)))
    while not state["done"]:
        await _wait_for(state["due"], replay, size, part)
        page = store.committed.page(state["cursor"], size, replay.selection)
        rows = [row for row in page.rows if row.cursor <= replay.until]
        await _send(channel, [_message(row, replay, state["mark"]) for row in rows])
        end = min(page.cursor, replay.until) if page.full else replay.until
        after = {"cursor": end, "events": state["events"] + len(rows), "done": end >= replay.until}
        due = _due(state["due"], len(rows), replay)
        state = _moved(store, replay, state, {**state, **after, "due": due})
        part.tell(len(rows), _left(state, replay), before)
        if not state["done"]:
            part.check()
    return int(state["events"])


def _begun(store: Store, replay: Replay) -> dict[str, Any]:
    """The state to go on from. ``first``: the first cursor that there is; ``mark``: what its messages bear; ``due``:
    the time of day before which nothing more is sent, because of the rate.
    """
    # Cursors begin far above 0, where ``after`` may be.
    first = store.committed.page(replay.after, 1, Selection()).cursor
    fresh = {
        "run": replay.run,
        "mark": f"{replay.name}/{replay.run}",
        "after": replay.after,
        "until": replay.until,
        "first": first,
        "cursor": replay.after,
        "events": 0,
        "due": time.time(),
        "done": False,
    }
    state = store.tasks.begin(replay.name, fresh)
    if state["run"] >= replay.run:
        return state
    return _moved(store, replay, state, fresh if state["done"] else {**state, "run": replay.run})


async def _wait_for(due: float, replay: Replay, size: int, part: TaskSlice) -> None:
    """Until the time of day ``due``. Raises Interrupted when the slice is over before."""
    if replay.rate is None:
        return
    # Never longer than the rate asks for, however the clock was set.
    end = time.monotonic() + min(due - time.time(), size / replay.rate)
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, LOOK))
        part.check()


def _due(before: float, sent: int, replay: Replay) -> float:
    if replay.rate is None:
        return before
    return max(before, time.time() - LAG) + sent / replay.rate


def _left(state: dict[str, Any], replay: Replay) -> int:
    """About how many are still to be sent: as many of the cursors to come as of those gone by."""
    cursor, events = int(state["cursor"]), int(state["events"])
    gone = max(1, cursor - max(replay.after, int(state["first"]) - 1))
    return round(events * (replay.until - cursor) / gone)


def _moved(store: Store, replay: Replay, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    if before != after and not store.tasks.move(replay.name, before, after):
        raise TakenOver(f"another process works on the replay {replay.name}: wait for it")
    return after


def _message(row: CommittedEvent, replay: Replay, mark: str) -> SubscriberMessage:
    message = subscriber_message(row, {MARK: mark})
    headers = {name: value for name, value in (message.properties.headers or {}).items() if name != "CC"}
    message.properties.headers = {**headers, MARK: mark}
    return replace(message, key=replay.queue)


async def _send(channel: ConfirmedChannel, messages: list[SubscriberMessage]) -> None:
    async with asyncio.timeout(CONNECT_LIMIT):
        await channel.link.connection()
    publishes = [channel.publish(each.body, each.key, each.properties, mandatory=True) for each in messages]
    for outcome in await publish_all(publishes, CONFIRM_LIMIT):
        if isinstance(outcome, aiormq.exceptions.PublishError):
            raise QueueGone("the queue to replay to is not on the broker: declare it, then redrive this job") from None
        if isinstance(outcome, aiormq.exceptions.DeliveryError):
            raise QueueGone("the queue to replay to is full and refuses: empty it, then redrive this job") from None
        if isinstance(outcome, (asyncio.CancelledError, *BROKER_ERRORS)):
            raise BrokerUnavailable(f"the replay was interrupted: {reason_of(outcome)}") from None
        if outcome is not None:
            raise outcome
