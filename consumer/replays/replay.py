"""Publishes past events to a queue as subscribers got them, marked as replayed. No handler runs.

Each event goes through the default exchange with new headers. A copy of the tape's message with its own headers would
place its work again on RabbitMQ 4, where messages on the tape keep ``CC``.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Final

import aiormq.exceptions

from jobtape.broker.confirmed_channel import ConfirmedChannel, publish_all
from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.broker.tasks import cancel_and_wait
from jobtape.consumer.replays.long_task import Interrupted, TakenOver, TaskSlice
from jobtape.consumer.subscriber_message import SubscriberMessage, subscriber_message
from jobtape.schemas.errors import BrokerUnavailable, JobtapeError
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import CommittedEvent, Store
from jobtape.view.threads import DatabaseThreads

PAGE: Final = 1000
"""Events that are read at once."""
PAGES: Final = 2
"""Events of a page, and pages in flight at most."""
CONFIRM_TIMEOUT: Final = 10.0
"""Seconds for the confirm of an event."""
CONNECT_TIMEOUT: Final = 15.0
"""Seconds until there must be a connection."""
CHECK_EVERY: Final = 1.0
"""Seconds of waiting for the rate between two checks whether the slice is over."""
MAX_LAG: Final = 1.0
"""Seconds by which a replay that is late may exceed the rate to catch up."""
MARK: Final = "replayed"
"""The header, and the attribute of the event, that contain the name of the replay."""


class QueueGone(JobtapeError):
    """The queue to replay to does not exist, or refuses messages."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Which events to publish to ``queue``.

    ``name``: identifies this replay. ``after``, ``until``: cursors; ``until`` is included. ``rate``: at most so many
    events a second. ``run``: a higher run continues what an earlier one has left, or starts again if that was complete.
    """

    name: str
    queue: str
    after: int
    until: int
    selection: Selection
    rate: float | None = None
    run: int = 1


async def replay_to_queue(url: str, store: Store, replay: Replay, task_slice: TaskSlice) -> int:
    """Publish the events that are not confirmed yet; return how many of the replay are published in all.

    Raises QueueGone, BrokerUnavailable, ViewUnavailable, Interrupted when the slice is over, TakenOver, and
    TimeoutError when there is no connection for ``CONNECT_TIMEOUT`` seconds.
    """
    link = Link(url, name=f"replay {replay.name}")
    link.start()
    try:
        return await _publish_all(ConfirmedChannel(link, ""), store, replay, task_slice)
    finally:
        await link.close()


async def _publish_all(channel: ConfirmedChannel, store: Store, replay: Replay, task_slice: TaskSlice) -> int:
    state = _begin(store, replay)
    # The cursors of the first attempt: "the present end" has moved since.
    replay = replace(replay, after=state["after"], until=state["until"])
    before = int(state["events"])
    size = PAGE if replay.rate is None else max(1, min(PAGE, round(replay.rate / 4)))
    # A thread reads the next page and writes the state, while the broker confirms this page and the one before.
    threads = DatabaseThreads("replay")
    read, due = state["cursor"], state["due"]
    next_page = threads.call(_read, store, replay, read, size, state["mark"])
    sent: deque[tuple[asyncio.Task[None], dict[str, Any], int]] = deque()
    interrupted: Interrupted | None = None
    try:
        while not state["done"]:
            try:
                while interrupted is None and len(sent) < PAGES and (read < replay.until or not sent):
                    await _wait_until(due, replay, size, task_slice)
                    messages, read = await next_page
                    if read < replay.until:
                        next_page = threads.call(_read, store, replay, read, size, state["mark"])
                    due = _due(due, len(messages), replay)
                    after = {"cursor": read, "done": read >= replay.until, "due": due}
                    sent.append((asyncio.create_task(_publish(channel, messages)), after, len(messages)))
                    task_slice.check()
            except Interrupted as error:
                interrupted = error  # raised when what is in flight is confirmed, or it would be published again
            if interrupted is not None and not sent:
                raise interrupted
            confirmed, after, number = sent.popleft()
            await confirmed
            after["events"] = state["events"] + number
            state = await threads.call(_save, store, replay, state, {**state, **after})
            task_slice.add(number, _left(state, replay), before)
    finally:
        for publishing, *_ in sent:
            await cancel_and_wait(publishing)
        await threads.join()
    return int(state["events"])


def _read(store: Store, replay: Replay, after: int, size: int, mark: str) -> tuple[list[SubscriberMessage], int]:
    """Return the messages of the next page, and the cursor at its end."""
    page = store.committed.page(after, size, replay.selection)
    end = min(page.cursor, replay.until) if page.full else replay.until
    return [_message(row, replay, mark) for row in page.rows if row.cursor <= replay.until], end


def _begin(store: Store, replay: Replay) -> dict[str, Any]:
    """Return the state to continue from.

    ``first``: the first cursor of the history. ``mark``: the value of ``MARK``. ``due``: the time of day before which
    the rate allows no further event.
    """
    # Cursors start far above 0, which ``after`` may be.
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
    return _save(store, replay, state, fresh if state["done"] else {**state, "run": replay.run})


async def _wait_until(due: float, replay: Replay, size: int, task_slice: TaskSlice) -> None:
    """Wait until the time of day ``due``. Raises Interrupted when the slice is over before."""
    if replay.rate is None:
        return
    # Never longer than the rate requires, even if the clock was set.
    end = time.monotonic() + min(due - time.time(), size / replay.rate)
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, CHECK_EVERY))
        task_slice.check()


def _due(before: float, sent: int, replay: Replay) -> float:
    if replay.rate is None:
        return before
    return max(before, time.time() - MAX_LAG) + sent / replay.rate


def _left(state: dict[str, Any], replay: Replay) -> int:
    """Estimate how many events are left, as if they were as dense as those so far."""
    cursor, events = int(state["cursor"]), int(state["events"])
    passed = max(1, cursor - max(replay.after, int(state["first"]) - 1))
    return round(events * (replay.until - cursor) / passed)


def _save(store: Store, replay: Replay, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    if before != after and not store.tasks.move(replay.name, before, after):
        raise TakenOver(f"another process works on the replay {replay.name}: wait for it")
    return after


def _message(row: CommittedEvent, replay: Replay, mark: str) -> SubscriberMessage:
    message = subscriber_message(row, {MARK: mark})
    headers = {name: value for name, value in (message.properties.headers or {}).items() if name != "CC"}
    message.properties.headers = {**headers, MARK: mark}
    return replace(message, key=replay.queue)


async def _publish(channel: ConfirmedChannel, messages: list[SubscriberMessage]) -> None:
    async with asyncio.timeout(CONNECT_TIMEOUT):
        await channel.link.connection()
    publishes = [channel.publish(each.body, each.key, each.properties, mandatory=True) for each in messages]
    for outcome in await publish_all(publishes, CONFIRM_TIMEOUT):
        if isinstance(outcome, aiormq.exceptions.PublishError):
            raise QueueGone("the queue to replay to is not on the broker: declare it, then redrive this job") from None
        if isinstance(outcome, aiormq.exceptions.DeliveryError):
            raise QueueGone("the queue to replay to is full and refuses: empty it, then redrive this job") from None
        if isinstance(outcome, (asyncio.CancelledError, *BROKER_ERRORS)):
            raise BrokerUnavailable(f"the replay was interrupted: {reason_of(outcome)}") from None
        if outcome is not None:
            raise outcome
