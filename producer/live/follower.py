"""Finds the next events for one listener, which is a cursor and a filter.

Theory of operation. While the cursor is inside the tail's buffer, the follower searches the buffer, and then sleeps
until an event matches. A cursor before the buffer's floor advances through the view, page by page, until it is inside.
A page that is not full has everything that was committed before it was read, including the tail's head, so the follower
may advance to there. So there is no gap between view and buffer, and no repeat, because the cursor only goes up.

When the history after the cursor is no longer complete, or does not reach the cursor, the follower returns ``Reset``
once and continues with what exists. A listener that begins with the first event is before the horizon, where some
events are kept and others are not. It gets no reset for what was lost before it began, only for later losses.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from jobtape.producer.live.event_buffer import encode_large
from jobtape.producer.live.tail import HistoryTail
from jobtape.producer.live.waiters import Woken
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import CommittedEvent, CommittedPage, HistoryRange
from jobtape.view.subscribers.committed import CommittedHistory

AT_ONCE: Final = 64 * 1024
"""About how many bytes of events are returned at a time."""
PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 128 * 1024
"""Small, because each listener that does not read keeps one page in memory."""
AWAY_PAUSE: Final = 1.0
"""Seconds until a database that does not answer is asked again."""


class StartPosition(Enum):
    """Where a listener can begin other than after a cursor."""

    FIRST = "first"
    NOW = "now"


After = int | Literal[StartPosition.FIRST, StartPosition.NOW]


@dataclass(frozen=True, slots=True)
class Reset:
    """The events after the position are missing: the history is complete after ``horizon`` and goes up to ``head``."""

    horizon: int
    head: int


class Follower:
    """To be used inside ``tail.held()``. ``position``: all matching events up to there were returned."""

    def __init__(self, tail: HistoryTail, committed: CommittedHistory, reads: ViewCalls, selection: Selection) -> None:
        self.position = 0
        self.pages = 0
        """How often the view was read instead of the buffer."""
        self._tail = tail
        self._committed = committed
        self._reads = reads
        self._selection = selection
        self._known_horizon = 0
        """A loss of history up to here causes no reset."""
        self._breaks = -1
        self._woken: Woken | None = None
        self._stopped = False

    async def begin(self, after: After) -> None:
        """Set the first position. Raises ViewUnavailable and TooBusy."""
        if isinstance(after, int):
            self.position = after
            return
        reach = await self._reads.call(self._committed.reach)
        if after is StartPosition.FIRST:
            self.position, self._known_horizon = 0, reach.horizon
        else:
            self.position = reach.head

    def stop(self) -> None:
        """Let this and all later calls of ``next`` return at once."""
        self._stopped = True
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    @property
    def stopped(self) -> bool:
        """Whether no further events will come."""
        return self._stopped or self._tail.ended

    async def next(self, timeout: float) -> Sequence[CommittedEvent] | Reset:
        """Return the next events or a reset; nothing when ``timeout`` seconds passed without, or when stopped.

        ``position`` may have changed in any case. Waits while the database does not answer.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while not self.stopped:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            try:
                found = await self._find(left)
            except (ViewUnavailable, TooBusy):
                await asyncio.sleep(min(AWAY_PAUSE, left))
            else:
                if found:
                    return found
        return ()

    async def _find(self, timeout: float) -> Sequence[CommittedEvent] | Reset:
        if not await self._tail.begun(timeout):
            return ()
        if self._breaks != self._tail.breaks and (reset := await self._check_position()):
            return reset
        if self.position < self._tail.buffer.floor:
            return await self._from_view()
        found = self._from_buffer()
        if not found:
            await self._sleep(timeout)
        return found

    async def _check_position(self) -> Reset | None:
        """Return a reset when the history does not reach the position, after the tail began or had a break."""
        breaks = self._tail.breaks
        reach = await self._reads.call(self._committed.reach)
        self._breaks = breaks
        return self._reset(reach) if self._lost(reach) or self.position > reach.head else None

    async def _from_view(self) -> Sequence[CommittedEvent] | Reset:
        head = self._tail.head
        page, entries, reach = await self._reads.call(self._page, self.position)
        self.pages += 1
        if self._lost(reach):
            return self._reset(reach)
        self.position = page.cursor if page.full else max(page.cursor, head)
        return entries

    def _page(self, after: int) -> tuple[CommittedPage, Sequence[CommittedEvent], HistoryRange]:
        page = self._committed.page(after, PAGE_ROWS, self._selection, PAGE_BYTES)
        # Read last: the horizon is then behind everything that was removed while the page was read.
        return page, encode_large(page.rows), self._committed.reach()

    def _from_buffer(self) -> Sequence[CommittedEvent]:
        found: list[CommittedEvent] = []
        size = 0
        for entry in self._tail.buffer.after(self.position):
            self.position = entry.cursor
            if entry.wanted_by(self._selection):
                found.append(entry)
                size += len(entry.delivered)
                if size >= AT_ONCE:
                    return found
        self.position = max(self.position, self._tail.head)
        return found

    async def _sleep(self, timeout: float) -> None:
        """Wait until an event matches, and advance past the others."""
        with self._tail.waiters.sleeping(self._selection) as woken:
            self._woken = woken
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.shield(woken)
            except TimeoutError:
                pass
            finally:
                self._woken = None
            # Not done: no event matched of all that the tail has read.
            received = woken.result() if woken.done() else self._tail.head
        self.position = max(self.position, received or 0)

    def _lost(self, reach: HistoryRange) -> bool:
        return reach.horizon > max(self.position, self._known_horizon)

    def _reset(self, reach: HistoryRange) -> Reset:
        self.position = reach.horizon if self.position < reach.horizon else reach.head
        return Reset(reach.horizon, reach.head)
