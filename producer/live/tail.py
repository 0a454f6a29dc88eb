"""The one tail of the committed history in this process: what the projector commits is read here once, for all.

Theory of operation. While anybody listens, one task asks the view how far the history goes, and reads what is new. It
puts that into the ring, and wakes those who sleep and want it. A listener has no queue: it is a cursor and a filter. It
reads from the ring as long as its cursor is not before the ring's floor, and otherwise from the view (``follow.py``).
So a listener that stops reading costs nothing but its own connection.

``head`` is the cursor up to which the ring has everything. Where the history has a hole (the tape lost something, and
that was accepted as a gap) or went back (another database), the ring begins again, ``breaks`` goes up, and everybody is
woken to compare their own cursor with what there is.

Often enough, not more: every 20 to 200 ms while something happens, less often the more there is to read, and more and
more seldom while there is nothing. While a request waits for the outcome of a job, every 40 ms at least.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from jobtape.producer.live.event_buffer import BufferedEvent, EventBuffer
from jobtape.producer.live.waiters import Waiters, Woken
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.reads import Reads
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.selection import Selection
from jobtape.view.committed import CommittedHistory
from jobtape.view.store import HistoryRange

log = logging.getLogger(__name__)

BUSY, URGENT, LONGEST, AWAY = 0.02, 0.04, 0.2, 1.0
"""Seconds from one look to the next: after something came, at least; at most, while somebody waits for an outcome, or
not; while the database does not answer."""
SLOWER: Final = 1.4
SHARE: Final = 100
"""The pause after something came is so many times the processor time that reading it took: threads of Python take
turns, so what is read is taken from those who submit."""
PAGE_ROWS: Final = 1000
PAGE_BYTES: Final = 4 * 1024 * 1024
EVERYTHING: Final = Selection()


@dataclass(frozen=True, slots=True)
class _News:
    """``head``: everything up to there is in ``entries``; ``full``: there may be more right now; ``spent``: seconds of
    processor time that reading it took.
    """

    entries: Sequence[BufferedEvent]
    head: int
    full: bool
    spent: float


def next_pause(before: float, spent: float | None, *, urgent: bool) -> float:
    """Seconds until the next look. ``before``: until the last one; ``spent``: the processor time of what came, in
    seconds, None when nothing did; ``urgent``: somebody waits for an outcome.
    """
    wanted = before * SLOWER if spent is None else max(BUSY, SHARE * spent)
    return min(wanted, URGENT if urgent else LONGEST)


class HistoryTail:
    """Runs while it is held. ``reads``: where its reads are made."""

    def __init__(self, committed: CommittedHistory, reads: Reads, ring: EventBuffer | None = None) -> None:
        self.ring = EventBuffer() if ring is None else ring
        self.head = 0
        self.breaks = 0
        self.trouble: str | None = None
        """Why nothing is read at the moment; None while the view answers."""
        self.ended = False
        self._committed = committed
        self._reads = reads
        self._waiters = Waiters()
        self._holders = 0
        self._urgent = 0
        self._task: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._hasten = asyncio.Event()

    @contextmanager
    def held(self, *, urgent: bool = False) -> Iterator[None]:
        """Let it run; with ``urgent`` it looks more often."""
        self._holders += 1
        self._urgent += urgent
        if urgent:
            self._hasten.set()
        if self._task is None and not self.ended:
            self._begun = asyncio.Event()
            self._task = asyncio.create_task(self._run(), name="tail")
        try:
            yield
        finally:
            self._holders -= 1
            self._urgent -= urgent
            if self._holders == 0:
                self._stop()

    async def begun(self, patience: float) -> bool:
        """Whether it has looked since it runs, after ``patience`` seconds at most: what is committed from then on is
        told.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._begun.wait()
        return self._begun.is_set() and not self.ended

    def sleeping(self, selection: Selection) -> AbstractContextManager[Woken]:
        """See ``Waiters.sleeping``; everything up to ``head`` must have been read."""
        return self._waiters.sleeping(selection)

    def wake_all(self) -> None:
        """Let everybody who sleeps look for themselves."""
        self._waiters.wake_all()

    def end(self) -> None:
        """Deliver nothing more: this process is about to stop."""
        self.ended = True
        self._begun.set()
        self._stop()
        self._waiters.wake_all()

    async def close(self) -> None:
        """End, and wait until the task has."""
        task = self._task
        self.end()
        if task is not None:
            await asyncio.wait({task})

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self.ring.begin(self.head)  # nobody is there to get what is in it

    async def _run(self) -> None:
        pause = BUSY
        while True:
            try:
                spent = await self._look()
            except (ViewUnavailable, TooBusy) as error:
                self._silent(str(error))
                pause = AWAY
            except Exception as error:  # whatever it is, it must not end in silence
                log.exception("the history could not be read")
                self.trouble = repr(error)
                pause = AWAY
            else:
                self._speaks()
                pause = next_pause(pause, spent, urgent=self._urgent > 0)
            await self._rest(pause)

    async def _look(self) -> float | None:
        """Read all that is new; the seconds of processor time that it took, None when nothing was."""
        if not self._begun.is_set():
            reach = await self._reads.call(self._committed.reach)
            self._begin_at(reach.head)
            self._begun.set()
            return None
        spent: float | None = None
        while (news := await self._reads.call(self._read, self.head)) is not None:
            if isinstance(news, HistoryRange):
                log.warning("the history goes on behind a hole, or went back: listeners get a reset")
                self._begin_at(news.head)
                self._waiters.wake_all()
                return 0.0
            spent = (spent or 0.0) + news.spent
            received, self.head = self.head, news.head
            self.ring.add(news.entries)
            self._waiters.tell(news.entries, received)
            if not news.full:
                break
        return spent

    def _read(self, head: int) -> "_News | HistoryRange | None":
        """What stands behind ``head``, a page at most; the reach where the history does not go on there; or None.

        In one call, since each costs those who submit a change of threads.
        """
        begun = time.thread_time()
        reach = self._committed.reach()
        if reach.horizon > head or reach.head < head:
            return reach
        if reach.head == head:
            return None
        page = self._committed.page(head, PAGE_ROWS, EVERYTHING, PAGE_BYTES)
        now = self._committed.reach()
        if now.horizon > head:
            return now  # what is in the page may stand behind the hole
        # A page that is not full has everything that was there before it was read.
        reached = page.cursor if page.full else max(page.cursor, reach.head)
        return _News([BufferedEvent(row) for row in page.rows], reached, page.full, time.thread_time() - begun)

    def _begin_at(self, head: int) -> None:
        self.head = head
        self.ring.begin(head)
        self.breaks += 1

    async def _rest(self, pause: float) -> None:
        self._hasten.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._hasten.wait()

    def _silent(self, trouble: str) -> None:
        if self.trouble is None:
            log.warning("no events of jobs can be read at the moment: %s", trouble)
        self.trouble = trouble

    def _speaks(self) -> None:
        if self.trouble is not None:
            log.info("the view answers again; nothing was missed")
            self.trouble = None
