"""One who listens: a cursor and a filter, and what comes next behind the cursor.

Theory of operation. While the cursor is within the ring of the tail, the ring is looked through, and then the follower
sleeps until something comes that it wants. A cursor before the ring's floor goes on through the view, page by page,
until it is within. A page that is not full has everything that was committed before it was read, the tail's head
included, so the follower may step there: no gap between view and ring, and no repeat, since the cursor only goes up.

Where the history is not complete behind the cursor any more, or does not reach it, the follower says ``Reset`` once and
goes on from what there is. Who begins with the first event is before the horizon, where some events are kept and others
are not: what was gone by then is no news to it, what is lost later is.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from jobtape.producer.live.event_buffer import BufferedEvent
from jobtape.producer.live.tail import HistoryTail
from jobtape.producer.live.waiters import Woken
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.reads import Reads
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.selection import Selection
from jobtape.view.committed import CommittedHistory
from jobtape.view.store import CommittedPage, HistoryRange

AT_ONCE: Final = 64 * 1024
"""Bytes of events, about, that are handed out at a time."""
PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 128 * 1024
"""Small, since a listener that does not read holds one."""
AWAY_PAUSE: Final = 1.0
"""Seconds until a database that does not answer is asked again."""


class StartPosition(Enum):
    """Where to begin, besides behind a cursor."""

    FIRST = "first"
    NOW = "now"


After = int | Literal[StartPosition.FIRST, StartPosition.NOW]


@dataclass(frozen=True, slots=True)
class Reset:
    """What was asked for is not there: the history is complete behind ``horizon`` and goes up to ``head``."""

    horizon: int
    head: int


class Follower:
    """``position``: everything wanted up to there was handed out. Within ``tail.held()`` only."""

    def __init__(self, tail: HistoryTail, committed: CommittedHistory, reads: Reads, selection: Selection) -> None:
        self.position = 0
        self.pages = 0
        """How often the view was read instead of the ring."""
        self._tail = tail
        self._committed = committed
        self._reads = reads
        self._selection = selection
        self._known_horizon = 0
        """Up to here a loss of history is no news."""
        self._breaks = -1
        self._woken: Woken | None = None
        self._stopped = False

    async def begin(self, after: After) -> None:
        """Take the position. Raises ViewUnavailable or TooBusy."""
        if isinstance(after, int):
            self.position = after
            return
        reach = await self._reads.call(self._committed.reach)
        if after is StartPosition.FIRST:
            self.position, self._known_horizon = 0, reach.horizon
        else:
            self.position = reach.head

    def stop(self) -> None:
        """Let ``next`` return at once, now and later."""
        self._stopped = True
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    @property
    def stopped(self) -> bool:
        """Whether there is nothing to come any more."""
        return self._stopped or self._tail.ended

    async def next(self, patience: float) -> Sequence[BufferedEvent] | Reset:
        """What comes next: some events, or a reset. Nothing after ``patience`` seconds without (``position`` may have
        moved all the same), or when stopped.

        A database that does not answer is waited for.
        """
        deadline = asyncio.get_running_loop().time() + patience
        while not self.stopped:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            try:
                found = await self._look(left)
            except (ViewUnavailable, TooBusy):
                await asyncio.sleep(min(AWAY_PAUSE, left))
            else:
                if found:
                    return found
        return ()

    async def _look(self, patience: float) -> Sequence[BufferedEvent] | Reset:
        if not await self._tail.begun(patience):
            return ()
        if self._breaks != self._tail.breaks and (reset := await self._compared()):
            return reset
        if self.position < self._tail.ring.floor:
            return await self._from_view()
        found = self._from_ring()
        if not found:
            await self._sleep(patience)
        return found

    async def _compared(self) -> Reset | None:
        """Whether the history reaches the position, after the tail began or broke off."""
        breaks = self._tail.breaks
        reach = await self._reads.call(self._committed.reach)
        self._breaks = breaks
        return self._reset(reach) if self._lost(reach) or self.position > reach.head else None

    async def _from_view(self) -> Sequence[BufferedEvent] | Reset:
        head = self._tail.head
        page, entries, reach = await self._reads.call(self._page, self.position)
        self.pages += 1
        if self._lost(reach):
            return self._reset(reach)
        self.position = page.cursor if page.full else max(page.cursor, head)
        return entries

    def _page(self, after: int) -> tuple[CommittedPage, list[BufferedEvent], HistoryRange]:
        page = self._committed.page(after, PAGE_ROWS, self._selection, PAGE_BYTES)
        # Afterwards: what was removed while the page was read is behind the horizon by now.
        return page, [BufferedEvent(row) for row in page.rows], self._committed.reach()

    def _from_ring(self) -> Sequence[BufferedEvent]:
        found: list[BufferedEvent] = []
        size = 0
        for entry in self._tail.ring.after(self.position):
            self.position = entry.cursor
            if entry.row.wanted_by(self._selection):
                found.append(entry)
                size += len(entry.delivered)
                if size >= AT_ONCE:
                    return found
        self.position = max(self.position, self._tail.head)
        return found

    async def _sleep(self, patience: float) -> None:
        """Wait until something comes that matches; skip what does not."""
        with self._tail.sleeping(self._selection) as woken:
            self._woken = woken
            try:
                async with asyncio.timeout(patience):
                    await asyncio.shield(woken)
            except TimeoutError:
                pass
            finally:
                self._woken = None
            # Not done: nothing matched of all that the tail has read.
            received = woken.result() if woken.done() else self._tail.head
        self.position = max(self.position, received or 0)

    def _lost(self, reach: HistoryRange) -> bool:
        return reach.horizon > max(self.position, self._known_horizon)

    def _reset(self, reach: HistoryRange) -> Reset:
        self.position = reach.horizon if self.position < reach.horizon else reach.head
        return Reset(reach.horizon, reach.head)
