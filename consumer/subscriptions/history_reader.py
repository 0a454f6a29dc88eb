"""Reads the committed history behind a position, page by page, and then follows it, by looking again and again.

Nobody notifies this reader: it polls one row (``reach``), so it may poll often while something
happens, and some times a second while nothing does.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jobtape.schemas import events
from jobtape.schemas.delivered_event import DeliveredEvent
from jobtape.schemas.errors import HistoryGone, ViewUnavailable
from jobtape.schemas.selection import Selection
from jobtape.view.store import CommittedEvent, CommittedPage, HistoryRange, Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

PAGE: Final = 100
"""Events that are read, and held, at a time."""
FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 0.25
AWAY_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """``cursor``: behind which to begin. ``horizon``: up to where a loss of history is no news. ``since``: what
    happened before that time is not wanted.
    """

    cursor: int
    horizon: int = 0
    since: datetime | None = None


class HistoryReader:
    """``look`` until ``take`` gives something. ``skip_gaps``: lost history is only logged."""

    def __init__(
        self, store: Store, wanted: Selection, start: Start, *, skip_gaps: bool, thread: DatabaseThreads
    ) -> None:
        self.passed = start.cursor
        """Up to here everything that is wanted has been taken."""
        self._store = store
        self._wanted = wanted
        self._since = start.since
        self._known_horizon = start.horizon
        self._skip_gaps = skip_gaps
        self._thread = thread
        self._rows: deque[CommittedEvent] = deque()
        self._through = start.cursor
        self._seen: HistoryRange | None = None
        self._pause = FIRST_PAUSE
        self._away = False

    def take(self) -> DeliveredEvent | None:
        """The next event, or None when the pages read so far have no more. Raises UnreadableEvent when the event is of
        a newer program.
        """
        while self._rows:
            row = self._rows[0]
            received = DeliveredEvent(events.decode(row.event.encode()), row.cursor)
            self._rows.popleft()
            self.passed = row.cursor if self._rows else self._through
            if self._since is None or row.time >= self._since:
                return received
        return None

    async def look(self) -> None:
        """Read on, or pause when there is nothing new. Call it when all is taken. Raises HistoryGone."""
        try:
            looked = await self._thread.call(self._look)
        except ViewUnavailable as error:
            if not self._away:
                log.warning("the history cannot be read: %s; trying again until it can", error)
            self._away = True
            await asyncio.sleep(AWAY_PAUSE)
            return
        self._away = False
        if not self._goes_on(looked.after):
            return
        self._seen = looked.after
        if looked.page is None:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
            return
        self._pause = FIRST_PAUSE
        page = looked.page
        # The head was read before the page: everything up to it was there to be found.
        self._through = page.cursor if page.full else max(page.cursor, looked.before.head)
        self._rows.extend(page.rows)
        if not self._rows:
            self.passed = self._through

    def _look(self) -> "_Look":
        before = self._store.committed.reach()
        if before == self._seen and self._through >= before.head:
            return _Look(before, None, before)
        page = self._store.committed.page(self._through, PAGE, self._wanted)
        # Read behind the page: what it was then, it was for the page at most.
        return _Look(before, page, self._store.committed.reach())

    def _goes_on(self, reach: HistoryRange) -> bool:
        """Whether the page can be taken as it is; False when reading has to start again. Raises HistoryGone."""
        lost = reach.horizon > max(self._through, self._known_horizon)
        foreign = self._through > reach.head
        if not (lost or foreign):
            return True
        gone = HistoryGone(reach.horizon, reach.head, reach.horizon if lost else reach.head)
        if not self._skip_gaps:
            raise gone
        log.warning("%s (passed over, as on_gap='skip' asks for)", gone)
        self._known_horizon = max(self._known_horizon, reach.horizon)
        if foreign:
            self.passed = self._through = reach.head
        return lost


@dataclass(frozen=True, slots=True)
class _Look:
    """``page`` is None when nothing has happened; ``before`` and ``after``: the reach on either side of reading it."""

    before: HistoryRange
    page: CommittedPage | None
    after: HistoryRange
