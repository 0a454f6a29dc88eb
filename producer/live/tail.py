"""Reads what the projector commits, once for all listeners of this process.

Theory of operation. While a client listens, one task asks the view how far the history goes, and reads what is new. It
adds that to the buffer, and wakes the sleepers whose filter matches. A listener has no queue: it is a cursor and a
filter. It reads from the buffer unless its cursor is before the buffer's floor, and then from the view
(``follower.py``). So a listener that stops reading costs only its own connection.

``head`` is the cursor up to which the buffer has everything. When the history has a hole (the tape lost events, and
that was accepted as a gap) or went back (another database), the buffer begins again, ``breaks`` goes up, and all
listeners are woken to compare their own cursor with the history.

The task reads when the projector notifies it of a commit (``commit_feed``), less often the more it has to read. When no
notices arrive, it polls every 20 to 200 ms while events come, and ever less often while there are none. Notices may be
lost, so it also polls every second beside them.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from jobtape.producer.live.commit_feed import CommitFeed
from jobtape.producer.live.event_buffer import EventBuffer, encode_large
from jobtape.producer.live.waiters import Waiters
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import CommittedEvent, HistoryRange, NeedsThread, Store

log = logging.getLogger(__name__)

BUSY, LONGEST, AWAY = 0.02, 0.2, 1.0
"""Seconds between two polls: at least, after events came; at most; while the database does not answer."""
SLOWER: Final = 1.4
SHARE: Final = 100
"""The pause after events came is so many times the processor time that reading them took. Python's threads take turns,
so that time is missing for submissions."""
NOTIFIED_SHARE: Final = 10
BURST: Final = 0.2
"""With notices the tail owes a pause of ten times the processor time that reading took. It may owe up to ``BURST``
seconds before it pauses, so that the few events of an idle installation come at once."""
UNNOTIFIED: Final = 1.0
"""Seconds between two polls beside notices."""
FEW_ROWS: Final = 20
"""Events that are read in one statement. With more, pages are read, whose size has a limit."""
ON_LOOP: Final = 0.0005
"""Seconds of processor time that such a statement is taken to need when the event loop awaits it, where it cannot be
measured: it was 0.24 ms one after the other, and 0.7 ms after pauses."""
PAGE_ROWS: Final = 1000
PAGE_BYTES: Final = 4 * 1024 * 1024
EVERYTHING: Final = Selection()


_Newest: TypeAlias = tuple[HistoryRange, Sequence[CommittedEvent]]


@dataclass(frozen=True, slots=True)
class _Read:
    """``entries`` contain everything up to ``head``. ``full``: there may be more. ``spent``: seconds of processor time
    that the read took.
    """

    entries: Sequence[CommittedEvent]
    head: int
    full: bool
    spent: float


def _few(
    head: int, reach: HistoryRange, events: Sequence[CommittedEvent], spent: float
) -> "_Read | HistoryRange | None":
    """Return what was read after ``head``, when that is everything: fewer than ``FEW_ROWS`` events."""
    if reach.horizon > head or reach.head < head:
        return reach
    return _Read(encode_large(events), reach.head, False, spent) if reach.head > head else None


def next_pause(before: float, spent: float | None) -> float:
    """Return the seconds until the next poll. ``before``: the previous pause. ``spent``: seconds of processor time for
    reading new events, None when there were none.
    """
    wanted = before * SLOWER if spent is None else max(BUSY, SHARE * spent)
    return min(wanted, LONGEST)


class HistoryTail:
    """Reads new events of the history while it is held. ``reads``: the threads that read the view."""

    def __init__(
        self,
        store: Store,
        reads: ViewCalls,
        commits: CommitFeed | None = None,
        buffer: EventBuffer | None = None,
    ) -> None:
        self.buffer = EventBuffer() if buffer is None else buffer
        self.head = 0
        self.breaks = 0
        self.fault: str | None = None
        """Why the view cannot be read now; None while it answers."""
        self.ended = False
        self._committed = store.committed
        self._awaited = store.awaited
        self._reads = reads
        self._commits = commits
        if commits is not None:
            commits.callbacks.append(self._on_commit)
        self.waiters = Waiters()
        """Those that have read everything up to ``head``."""
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._new_commit = asyncio.Event()
        self._due_pause = self._paused_at = 0.0
        """Seconds for which the tail should not read, at a time of the event loop."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the tail run inside the block."""
        self._users += 1
        if self._task is None and not self.ended:
            self._begun = asyncio.Event()
            self._task = asyncio.create_task(self._run(), name="tail")
            if self._commits is not None:
                self._commits.acquire()
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                self._stop()

    async def begun(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until the tail has its first position, and return whether it has one.

        Events that are committed later wake the sleepers.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._begun.wait()
        return self._begun.is_set() and not self.ended

    def end(self) -> None:
        """Stop for good and wake all listeners, because this process is about to stop."""
        self.ended = True
        self._begun.set()
        self._stop()
        self.waiters.wake_all()

    async def close(self) -> None:
        """End, and wait until the task has ended."""
        task = self._task
        self.end()
        if task is not None:
            await asyncio.wait({task})

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self.buffer.begin(self.head)  # nobody reads what is in it
        if self._commits is not None:
            self._commits.release()

    def _on_commit(self, _: Mapping[str, bool] | None) -> None:
        self._new_commit.set()

    async def _run(self) -> None:
        pause = BUSY
        spent: float | None
        while True:
            spent = None
            self._new_commit.clear()
            try:
                spent = await self._poll()
            except (ViewUnavailable, TooBusy) as error:
                self._log_outage(str(error))
                pause = AWAY
            except Exception as error:  # no error may end the task unnoticed
                log.exception("the history could not be read")
                self.fault = repr(error)
                pause = AWAY
            else:
                self._log_recovery()
                pause = next_pause(pause, spent)
            await self._wait(pause, spent)

    async def _poll(self) -> float | None:
        """Read all new events. Return the seconds of processor time that it took, None when there were none."""
        if not self._begun.is_set():
            reach = await self._reads.call(self._committed.reach)
            self._begin_at(reach.head)
            self._begun.set()
            return None
        spent: float | None = None
        while (new := await self._next(self.head)) is not None:
            if isinstance(new, HistoryRange):
                log.warning("the history goes on behind a hole, or went back: listeners get a reset")
                self._begin_at(new.head)
                self.waiters.wake_all()
                return 0.0
            spent = (spent or 0.0) + new.spent
            received, self.head = self.head, new.head
            self.buffer.add(new.entries)
            self.waiters.wake_matching(new.entries, received)
            if not new.full:
                break
        return spent

    async def _next(self, head: int) -> "_Read | HistoryRange | None":
        """Return the next page after ``head``, None at the end, and the range when the history is broken there."""
        try:
            await self._awaited.connect(self._reads.call)
            newest = await self._awaited.newest(head, FEW_ROWS)
        except NeedsThread:
            return await self._reads.call(self._read, head)
        if len(newest[1]) < FEW_ROWS:
            return _few(head, *newest, ON_LOOP)
        return await self._reads.call(self._read, head, newest)

    def _read(self, head: int, newest: _Newest | None = None) -> "_Read | HistoryRange | None":
        """Return what ``_next`` does. ``newest``: what is known already.

        All in one call, because each call costs submissions a switch of threads.
        """
        begun = time.thread_time()
        reach, events = newest or self._committed.newest(head, FEW_ROWS)
        if len(events) < FEW_ROWS:
            return _few(head, reach, events, time.thread_time() - begun)
        page = self._committed.page(head, PAGE_ROWS, EVERYTHING, PAGE_BYTES)
        now = self._committed.reach()
        if now.horizon > head:
            return now  # the page may be behind the hole
        # A page that is not full has everything that was there before it was read.
        reached = page.cursor if page.full else max(page.cursor, reach.head)
        return _Read(encode_large(page.rows), reached, page.full, time.thread_time() - begun)

    def _begin_at(self, head: int) -> None:
        self.head = head
        self.buffer.begin(head)
        self.breaks += 1

    async def _wait(self, pause: float, spent: float | None) -> None:
        """Wait until the view should be read again. ``pause``: seconds until the next poll without notices.
        ``spent``: seconds of processor time that reading took, None when there was nothing new.
        """
        if self._commits is None or not self._commits.live or self.fault is not None:
            return await asyncio.sleep(pause)
        now = asyncio.get_running_loop().time()
        self._due_pause = max(0.0, self._due_pause - (now - self._paused_at)) + (spent or 0.0) * NOTIFIED_SHARE
        self._paused_at = now
        await asyncio.sleep(min(LONGEST, max(0.0, self._due_pause - BURST)))
        with suppress(TimeoutError):
            async with asyncio.timeout(UNNOTIFIED):
                await self._new_commit.wait()

    def _log_outage(self, fault: str) -> None:
        if self.fault is None:
            log.warning("no events of jobs can be read at the moment: %s", fault)
        self.fault = fault

    def _log_recovery(self) -> None:
        if self.fault is not None:
            log.info("the view answers again; nothing was missed")
            self.fault = None
