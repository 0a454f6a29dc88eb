"""Publishes accepted events to subscribers, on ``<ns>.results``, in the tape's order and at least once.

Theory of operation. The relay of the active projector takes the committed events after a position of its own, from
memory when it has kept up with the fold and from the view otherwise. It publishes a window of them, and moves the
position to the last event of which all earlier ones are done too. An event is done when it was confirmed or refused. A
nack means that some queue is full and refuses the event. The other queues have it, so it is only counted. Nothing else
waits for the relay. It has a connection of its own, because a queue that cannot confirm (it has no majority) stops the
whole connection that publishes to it.

A **stall** means: no confirm for ``CONFIRM_TIMEOUT`` seconds. The relay reports it, drops the connection, and
publishes the next event alone, over a new connection, again and again with longer pauses. So healthy queues do not get
a whole window of repeats each time. After the first confirm the window doubles with each publish.

The position is saved now and then, so a relay that dies publishes some events again. On a tape that this installation
created it starts at the beginning. Otherwise (a new view of an old tape, a relay that was off) it starts behind a
barrier at the present checkpoint, so that no old event is published.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import aiormq.exceptions

from jobtape.broker import declare
from jobtape.broker.confirmed_channel import ConfirmedChannel, publish_all
from jobtape.broker.link import BROKER_ERRORS, Connection, Link
from jobtape.broker.tasks import finish_before_cancel, wait_for_stop
from jobtape.consumer.projector.active_projector import ActiveProjector, NotActive
from jobtape.consumer.projector.recent_events import RecentEvents
from jobtape.consumer.subscriber_message import subscriber_message
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.events import RELAYED_EVENTS, RelayMode
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import CommittedEvent, CommittedPage, FoldedBatch
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

WINDOW: Final = 500
"""Events taken at once, and in flight at most."""
CONFIRM_TIMEOUT: Final = 10.0
"""Seconds without any confirm after which the relay is stalled."""
FIRST_PAUSE: Final = 10.0
LONGEST_PAUSE: Final = 60.0
"""Seconds between two attempts of a stalled relay: ``FIRST_PAUSE`` at first, then longer."""
POLL: Final = 1.0
"""Seconds between two queries when nobody notifies the relay."""
SAVE_EVERY: Final = 0.2
"""Seconds between two writes of the position."""


@dataclass(slots=True)
class PublishProgress:
    """All events up to ``cursor`` are confirmed or refused; the counts are of those since the last save."""

    cursor: int
    delivered: int = 0
    refused: int = 0
    unsaved: bool = False

    def reach(self, cursor: int, *, delivered: int = 0, refused: int = 0) -> None:
        """Advance to ``cursor``, never back."""
        if cursor > self.cursor or delivered or refused:
            self.cursor = max(cursor, self.cursor)
            self.delivered += delivered
            self.refused += refused
            self.unsaved = True


class Relay:
    """The service that publishes committed events to subscribers. ``mode``: which ones."""

    def __init__(self, active: ActiveProjector, mode: RelayMode) -> None:
        self._active = active
        self._store = active.store
        self._owner = active.owner
        self._mode = mode
        name = f"{active.topology.namespace} projector {active.owner} (relay)"
        self._link = Link(active.link.url, name=name, setup=self._declare)
        self._channel = ConfirmedChannel(self._link, active.topology.results.name)
        # A thread of its own: neither the fold nor the other services wait for these calls.
        self._thread = DatabaseThreads("relay")
        self._committed = asyncio.Event()
        self._recent = RecentEvents(RELAYED_EVENTS[mode])
        self._window = WINDOW
        self._stalled = False
        self._pause = 0.0
        self._progress = PublishProgress(0)

    def notify(self, batch: FoldedBatch, cursor: int) -> None:
        """Notify the relay that the fold has committed ``batch``, which ends at ``cursor``."""
        self._recent.add(batch, cursor)
        self._committed.set()

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await self._link.close()
        self._thread.close()

    async def run(self) -> None:
        """Run until cancelled. Raises ViewUnavailable, NotActive, BrokerUnavailable and BROKER_ERRORS.

        The next call continues from the saved position.
        """
        if not RELAYED_EVENTS[self._mode]:
            await self._write(self._store.relay.forget, self._owner)
            await asyncio.get_running_loop().create_future()
        self._link.start()
        self._recent.clear()  # the last time may have been long ago
        self._progress = PublishProgress(await self._start_position())
        try:
            await self._relay()
        finally:
            if self._progress.unsaved:
                with suppress(ViewUnavailable, NotActive):
                    await self._save()

    async def _declare(self, connection: Connection) -> None:
        await declare.declare_results(connection, self._active.topology)

    async def _start_position(self) -> int:
        """Return the cursor after which to publish."""
        cursor = await self._thread.call(self._store.relay.take_up, self._owner, self._mode)
        if cursor is not None:
            reach = await self._thread.call(self._store.committed.reach)
            if cursor < reach.horizon:
                log.warning(
                    "events between cursors %d and %d are not kept any more, nor published", cursor, reach.horizon
                )
            return cursor
        await self._active.catch_up()
        reach = await self._thread.call(self._store.committed.reach)
        await self._write(self._store.relay.begin, self._owner, reach.head)
        cursor = await self._thread.call(self._store.relay.take_up, self._owner, self._mode)
        if cursor is None:
            raise NotActive
        log.info("the relay starts at cursor %d: earlier events are not published", cursor)
        return cursor

    async def _relay(self) -> None:
        clock = asyncio.get_running_loop().time
        save_at = clock() + SAVE_EVERY
        while True:
            self._committed.clear()
            page = self._recent.page(self._progress.cursor, WINDOW) or await self._page_of_view()
            # Imported events happened on another tape, whose relay published them.
            await self._publish_all([row for row in page.rows if not row.imported])
            self._progress.reach(page.cursor)
            if self._progress.unsaved and clock() >= save_at:
                await self._save()
                save_at = clock() + SAVE_EVERY
            if not page.full:
                await wait_for_stop(self._committed, max(0.0, save_at - clock()) if self._progress.unsaved else POLL)

    async def _page_of_view(self) -> CommittedPage:
        selection = Selection(events=RELAYED_EVENTS[self._mode])
        head = self._recent.head
        page = await self._thread.call(self._store.committed.page, self._progress.cursor, WINDOW, selection)
        # A page that is not full has everything that was committed before it was read.
        return page if page.full else replace(page, cursor=max(page.cursor, head))

    async def _publish_all(self, rows: Sequence[CommittedEvent]) -> None:
        """Publish ``rows``, and return when all are confirmed or refused."""
        while rows:
            await self._link.connection()
            outcomes = await publish_all([self._publish(row) for row in rows[: self._window]], CONFIRM_TIMEOUT)
            done, fault = self._count(rows, outcomes)
            rows = rows[done:]
            if done:
                if self._stalled:
                    log.info("the relay continues")
                self._stalled, self._pause = False, 0.0
            if fault is None:
                self._window = min(WINDOW, self._window * 2)
                continue
            self._window = 1
            self._link.reset()
            if not isinstance(fault, asyncio.CancelledError):
                raise fault
            await self._report_stall()

    def _publish(self, row: CommittedEvent) -> "asyncio.Future[None]":
        try:
            message = subscriber_message(row)
        except Exception as error:  # noqa: BLE001 - it concerns this event only
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed
        return self._channel.publish(message.body, message.key, message.properties, mandatory=False)

    def _count(
        self, rows: Sequence[CommittedEvent], outcomes: Sequence[BaseException | None]
    ) -> tuple[int, BaseException | None]:
        """Return how many of the first events are done, and the error of the next one."""
        for n, outcome in enumerate(outcomes):
            if outcome is None:
                self._progress.reach(rows[n].cursor, delivered=1)
            elif isinstance(outcome, aiormq.exceptions.DeliveryError):
                self._progress.reach(rows[n].cursor, refused=1)
            elif isinstance(outcome, (asyncio.CancelledError, *BROKER_ERRORS)):
                return n, outcome
            else:
                # It would fail each time, and delay everything after it.
                log.error("the event %s cannot be published", rows[n].event_id, exc_info=outcome)
                self._progress.reach(rows[n].cursor, refused=1)
        return len(outcomes), None

    async def _report_stall(self) -> None:
        """Write the stall to the view, and pause."""
        exchange = self._active.topology.results.name
        why = (
            f"relay-stalled: no confirm within {CONFIRM_TIMEOUT:g} s. A queue that somebody bound to {exchange} "
            "confirms nothing (has it a majority?), or an alarm of the broker blocks "
            "publishers: see `jobtape doctor`"
        )
        if not self._stalled:
            log.warning("%s", why)
        self._stalled = True
        await self._save(why)
        await asyncio.sleep(self._pause)
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)

    async def _save(self, fault: str | None = None) -> None:
        """Write the position, the counts, and why the relay is stalled."""

        async def save() -> None:
            done = self._progress
            await self._write(self._store.relay.move, self._owner, done.cursor, done.delivered, done.refused, fault)
            self._progress = PublishProgress(done.cursor)

        # A save that is cancelled halfway would be repeated, and would count its events twice.
        await finish_before_cancel(save())

    async def _write(self, write: Callable[..., bool], *args: object) -> None:
        """Call ``write`` in the thread. Raises NotActive when it returns False."""
        if not await self._thread.call(write, *args):
            raise NotActive
