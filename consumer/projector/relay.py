"""Publishes what the fold has accepted to subscribers, on ``<ns>.results``, in the tape's order, at least once.

Theory of operation. The active projector's relay reads the committed history behind a position of its own, publishes a
window of events, and moves the position to the last one up to which all are *settled*: confirmed, or refused. A nack
says that some queue is full and refuses; the others have the event, so it is only counted. Nobody else
waits for the relay, and it has a connection of its own, since a queue that can confirm nothing (no majority) stops the
whole connection that publishes to it.

That is a **stall**: no confirm for ``CONFIRM_LIMIT`` seconds. It is reported, the connection dropped, and the event
that comes next published alone, over another connection, again and again with growing pauses, so that queues in order
do not get a windowful of repeats each time. With the first confirm the window doubles from event to event.

The position is written now and then, so a relay that dies publishes some events again. It begins with the tape when
that was created by us; otherwise (a new view of an old tape, a relay that was off) behind a barrier at the present
checkpoint, so that nothing old is published.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import aiormq.exceptions

from jobtape.broker import declare
from jobtape.broker.confirmed_channel import ConfirmedChannel, publish_all
from jobtape.broker.link import BROKER_ERRORS, Connection, Link
from jobtape.broker.tasks import wait_for_stop
from jobtape.consumer.projector.maintenance.leader import NotActive
from jobtape.consumer.subscriber_message import subscriber_message
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.events import RELAYED_EVENTS, RelayMode
from jobtape.schemas.selection import Selection
from jobtape.schemas.topology import Topology
from jobtape.view.store import CommittedEvent, Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

WINDOW: Final = 500
"""Events in flight at most, and events read at once."""
CONFIRM_LIMIT: Final = 10.0
"""Seconds without any confirm until the relay is stalled."""
FIRST_PAUSE: Final = 10.0
LONGEST_PAUSE: Final = 60.0
"""Seconds between two tries of a stalled relay."""
EVERY: Final = 1.0
"""Seconds between two looks without news."""
SAVE_EVERY: Final = 0.2
"""Seconds between two writes of the position."""


class PublishProgress:
    """Everything up to ``cursor`` is published or refused; ``delivered`` and ``refused`` count since the last save."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.delivered = 0
        self.refused = 0
        self.unsaved = False

    def reach(self, cursor: int, *, delivered: int = 0, refused: int = 0) -> None:
        """Advance to ``cursor``, never back."""
        if cursor > self.cursor or delivered or refused:
            self.cursor = max(cursor, self.cursor)
            self.delivered += delivered
            self.refused += refused
            self.unsaved = True

    def saved(self) -> None:
        """Reset the counts after a save."""
        self.delivered = self.refused = 0
        self.unsaved = False


class Relay:
    """``mode``: which events; ``catch_up`` returns when the fold has passed what was on the tape at the call."""

    def __init__(
        self,
        url: str,
        topology: Topology,
        store: Store,
        *,
        owner: str,
        mode: RelayMode,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._topology = topology
        self._store = store
        self._owner = owner
        self._mode = mode
        self._catch_up = catch_up
        self._link = Link(url, name=f"{topology.namespace} projector {owner} (relay)", setup=self._declare)
        self._channel = ConfirmedChannel(self._link, topology.results.name)
        # A thread of its own: neither the fold nor the effects wait for what is read here.
        self._thread = DatabaseThreads("relay")
        self._news = asyncio.Event()
        self._window = WINDOW
        self._stalled = False
        self._pause = 0.0
        self._progress = PublishProgress(0)

    def folded(self) -> None:
        """The fold has committed something."""
        self._news.set()

    async def close(self) -> None:
        """End the connection."""
        await self._link.close()
        self._thread.close()

    async def run(self) -> None:
        """Until it is cancelled. Raises ViewUnavailable, NotActive, BrokerUnavailable and what the broker's libraries
        raise; the next call goes on from the position.
        """
        if not RELAYED_EVENTS[self._mode]:
            await self._written(self._store.relay.forget, self._owner)
            await asyncio.get_running_loop().create_future()
        self._link.start()
        self._progress = PublishProgress(await self._begin())
        try:
            await self._go_on()
        finally:
            if self._progress.unsaved:
                with suppress(ViewUnavailable, NotActive):
                    await self._save()

    async def _declare(self, connection: Connection) -> None:
        await declare.declare_results(connection, self._topology)

    async def _begin(self) -> int:
        """The position to go on behind."""
        cursor = await self._thread.call(self._store.relay.take_up, self._owner, self._mode)
        if cursor is not None:
            reach = await self._thread.call(self._store.committed.reach)
            if cursor < reach.horizon:
                log.warning(
                    "events between cursors %d and %d are not kept any more, nor published", cursor, reach.horizon
                )
            return cursor
        await self._catch_up()
        reach = await self._thread.call(self._store.committed.reach)
        await self._written(self._store.relay.begin, self._owner, reach.head)
        cursor = await self._thread.call(self._store.relay.take_up, self._owner, self._mode)
        if cursor is None:
            raise NotActive
        log.info("the relay begins at cursor %d: what came before is not published", cursor)
        return cursor

    async def _go_on(self) -> None:
        selection = Selection(events=RELAYED_EVENTS[self._mode])
        clock = asyncio.get_running_loop().time
        save_at = clock() + SAVE_EVERY
        while True:
            self._news.clear()
            page = await self._thread.call(self._store.committed.page, self._progress.cursor, WINDOW, selection)
            # Another tape's events are old news.
            await self._tell([row for row in page.rows if not row.after.imported])
            self._progress.reach(page.cursor)
            if self._progress.unsaved and clock() >= save_at:
                await self._save()
                save_at = clock() + SAVE_EVERY
            if not page.full:
                await wait_for_stop(self._news, max(0.0, save_at - clock()) if self._progress.unsaved else EVERY)

    async def _tell(self, rows: Sequence[CommittedEvent]) -> None:
        """Returns when all of them are settled; the progress goes along."""
        while rows:
            await self._link.connection()
            outcomes = await publish_all([self._publish(row) for row in rows[: self._window]], CONFIRM_LIMIT)
            settled, trouble = self._reckon(rows, outcomes)
            rows = rows[settled:]
            if settled:
                self._goes_on()
            if trouble is None:
                self._window = min(WINDOW, self._window * 2)
                continue
            self._window = 1
            self._link.reset()
            if not isinstance(trouble, asyncio.CancelledError):
                raise trouble
            await self._stalls()

    async def _publish(self, row: CommittedEvent) -> None:
        message = subscriber_message(row)
        await self._channel.publish(message.body, message.key, message.properties, mandatory=False)

    def _reckon(
        self, rows: Sequence[CommittedEvent], outcomes: Sequence[BaseException | None]
    ) -> tuple[int, BaseException | None]:
        """How many of the first events are settled, and why the next one is not."""
        for n, outcome in enumerate(outcomes):
            if outcome is None:
                self._progress.reach(rows[n].cursor, delivered=1)
            elif isinstance(outcome, aiormq.exceptions.DeliveryError):
                self._progress.reach(rows[n].cursor, refused=1)
            elif isinstance(outcome, (asyncio.CancelledError, *BROKER_ERRORS)):
                return n, outcome
            else:
                # It would be so each time, and hold up all that comes after it.
                log.error("the event %s cannot be published", rows[n].event_id, exc_info=outcome)
                self._progress.reach(rows[n].cursor, refused=1)
        return len(outcomes), None

    async def _stalls(self) -> None:
        """Report it and pause."""
        why = (
            f"relay-stalled: no confirm within {CONFIRM_LIMIT:g} s. A queue that somebody bound to "
            f"{self._topology.results.name} confirms nothing (has it a majority?), or an alarm of the broker blocks "
            "publishers: see `jobtape doctor`"
        )
        if not self._stalled:
            log.warning("%s", why)
        self._stalled = True
        await self._save(why)
        await asyncio.sleep(self._pause)
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)

    def _goes_on(self) -> None:
        if self._stalled:
            log.info("the relay goes on")
        self._stalled, self._pause = False, 0.0

    async def _save(self, trouble: str | None = None) -> None:
        """Write how far it is, and that it is stalled there or is not."""
        done = self._progress
        await self._written(self._store.relay.move, self._owner, done.cursor, done.delivered, done.refused, trouble)
        done.saved()

    async def _written(self, write: Callable[..., bool], *args: object) -> None:
        if not await self._thread.call(write, *args):
            raise NotActive
