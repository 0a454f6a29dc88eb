"""Reads the committed history after a position, page by page, and then polls for new events.

Nobody notifies this reader. It polls one row (``reach``), very often while events arrive and four times a second
otherwise.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jobtape.schemas import events
from jobtape.schemas.errors import HistoryGone, ViewUnavailable
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.messages.delivered_event import DeliveredEvent
from jobtape.view.store import CommittedEvent, CommittedPage, HistoryRange, Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

PAGE: Final = 100
"""Events that are read, and kept in memory, at a time."""
FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 0.25
"""Seconds between two reads when there is nothing new: ``FIRST_PAUSE`` at first, then longer."""
RETRY_PAUSE: Final = 1.0
"""Seconds until a database that is away is tried again."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where to start reading.

    ``cursor``: read the events after it. ``horizon``: a loss of history up to here is not reported. ``since``: skip
    events from before this time.
    """

    cursor: int
    horizon: int = 0
    since: datetime | None = None


class HistoryReader:
    """Call ``take`` until it returns None, then ``poll``. With ``skip_gaps`` lost history is only logged."""

    def __init__(
        self, store: Store, wanted: Selection, start: Start, *, skip_gaps: bool, thread: DatabaseThreads
    ) -> None:
        self.passed = start.cursor
        """All wanted events up to this cursor were taken."""
        self._store = store
        self._wanted = wanted
        self._since = start.since
        self._known_horizon = start.horizon
        self._skip_gaps = skip_gaps
        self._thread = thread
        self._rows: deque[CommittedEvent] = deque()
        self._read_up_to = start.cursor
        self._seen: HistoryRange | None = None
        self._pause = FIRST_PAUSE
        self._away = False

    def take(self) -> DeliveredEvent | None:
        """Return the next event of the pages that were read, or None after the last one.

        Raises UnreadableEvent for an event of a newer version of Jobtape.
        """
        while self._rows:
            row = self._rows[0]
            event = DeliveredEvent(events.decode(row.event.encode()), row.cursor)
            self._rows.popleft()
            self.passed = row.cursor if self._rows else self._read_up_to
            if self._since is None or row.time >= self._since:
                return event
        return None

    async def poll(self) -> None:
        """Read the next page, or pause when there is nothing new. Raises HistoryGone."""
        try:
            before, page, after = await self._thread.call(self._read)
        except ViewUnavailable as error:
            if not self._away:
                log.warning("the history cannot be read: %s; trying again until it can", error)
            self._away = True
            await asyncio.sleep(RETRY_PAUSE)
            return
        self._away = False
        if not self._is_complete(after):
            return
        self._seen = after
        if page is None:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
            return
        self._pause = FIRST_PAUSE
        # The head was read before the page, so the page contains everything up to it.
        self._read_up_to = page.cursor if page.full else max(page.cursor, before.head)
        self._rows.extend(page.rows)
        if not self._rows:
            self.passed = self._read_up_to

    def _read(self) -> tuple[HistoryRange, CommittedPage | None, HistoryRange]:
        """Return the next page, None when nothing has changed, between the ranges of history before and after it.

        If the range after the read still contains the position, the page has no gap.
        """
        before = self._store.committed.reach()
        if before == self._seen and self._read_up_to >= before.head:
            return before, None, before
        page = self._store.committed.page(self._read_up_to, PAGE, self._wanted)
        return before, page, self._store.committed.reach()

    def _is_complete(self, reach: HistoryRange) -> bool:
        """Return whether the page has no gap before it; False when it has to be read again. Raises HistoryGone."""
        lost = reach.horizon > max(self._read_up_to, self._known_horizon)
        foreign = self._read_up_to > reach.head
        if not (lost or foreign):
            return True
        gone = HistoryGone(reach.horizon, reach.head, reach.horizon if lost else reach.head)
        if not self._skip_gaps:
            raise gone
        log.warning("%s (skipped, as on_gap='skip' says)", gone)
        self._known_horizon = max(self._known_horizon, reach.horizon)
        if foreign:
            self.passed = self._read_up_to = reach.head
        return lost
