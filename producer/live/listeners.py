"""Everybody who listens in this process: how many there may be, what they share, and their end."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from jobtape.producer.live.follower import Follower
from jobtape.producer.live.memory_trim import MemoryTrimmer
from jobtape.producer.live.stop_signals import StopSignals
from jobtape.producer.live.tail import HistoryTail
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.reads import Reads
from jobtape.schemas.selection import Selection
from jobtape.view.store import Store

Kind = Literal["sse", "websocket", "wait"]
KINDS: Final[tuple[Kind, ...]] = ("sse", "websocket", "wait")
THREADS: Final = 3
"""For the tail and for those who catch up: they must not keep other reads of the view waiting."""


class Listeners:
    """``most``: how many at once, of all kinds. ``read_limit``: seconds for one read of the view."""

    def __init__(self, store: Store, *, most: int, read_limit: float) -> None:
        self.now: Counter[Kind] = Counter()
        self.delivered: Counter[Kind] = Counter()
        """Events, counted once for each listener that got them."""
        self.pages = 0
        """Pages of the view that were read for those whose position was not in memory."""
        self._most = most
        self._at_end: set[Callable[[], None]] = set()
        self._signals = StopSignals(self.end)
        self._memory_trimmer = MemoryTrimmer()
        self._reads = Reads("jobtape-live", threads=THREADS, limit=read_limit)
        self._committed = store.committed
        self.tail = HistoryTail(self._committed, self._reads)

    def check_room(self) -> None:
        """Raises TooBusy when there is no place."""
        if self.tail.ended:
            raise TooBusy("this process is about to stop: connect again, and another one answers")
        if self.now.total() >= self._most:
            raise TooBusy(f"{self._most} are listening here already (JOBTAPE_MAX_LISTENERS): try again later")

    @contextmanager
    def place(self, kind: Kind) -> Iterator[None]:
        """A place, given back at the end however that comes, and the tail running. Raises TooBusy."""
        self.check_room()
        self._signals.listen()
        self.now[kind] += 1
        try:
            with self.tail.held(urgent=kind == "wait"):
                yield
        finally:
            self.now[kind] -= 1
            if kind != "wait":  # which is short, and there may be hundreds in a second
                self._memory_trimmer.stream_ended()

    def follower(self, selection: Selection) -> Follower:
        """One who listens, within a place."""
        return Follower(self.tail, self._committed, self._reads, selection)

    @contextmanager
    def notified_of_end(self, *calls: Callable[[], None]) -> Iterator[None]:
        """``calls`` are made when the process is asked to stop meanwhile."""
        self._at_end.update(calls)
        try:
            yield
        finally:
            self._at_end.difference_update(calls)

    def end(self) -> None:
        """Let all streams end and all who wait be answered, now: the process was asked to stop."""
        self.tail.end()
        for call in tuple(self._at_end):
            call()

    async def close(self) -> None:
        """End, and let go of the threads."""
        self._signals.leave()
        self._memory_trimmer.close()
        await self.tail.close()
        await self._reads.close()
