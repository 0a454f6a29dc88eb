"""All clients that listen in this process: their number, what they share, and their end."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

from jobtape.producer.live.commit_feed import CommitFeed
from jobtape.producer.live.follower import Follower
from jobtape.producer.live.memory_trim import MemoryTrimmer
from jobtape.producer.live.stop_signals import StopSignals
from jobtape.producer.live.tail import HistoryTail
from jobtape.producer.live.waiters import Waiters
from jobtape.producer.service.errors import TooBusy
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import Store

Kind = Literal["sse", "websocket", "wait"]
KINDS: Final[tuple[Kind, ...]] = ("sse", "websocket", "wait")
THREADS: Final = 3
"""Threads of the tail and of listeners that read the view, so that they do not delay other reads."""


class Listeners:
    """The clients that listen, and what wakes them. ``most``: the largest number of listeners of all kinds.
    ``read_limit``: seconds for one read of the view. ``commits`` receives the projector's notices.
    """

    def __init__(self, store: Store, commits: CommitFeed, *, most: int, read_limit: float) -> None:
        self.now: Counter[Kind] = Counter()
        self.delivered: Counter[Kind] = Counter()
        """Events, counted once for each listener that got them."""
        self.pages = 0
        """Pages of the view that were read for listeners whose position was not in memory."""
        self._most = most
        self._on_stop: set[Callable[[], None]] = set()
        self._signals = StopSignals(self.end)
        self._memory_trimmer = MemoryTrimmer()
        self._reads = ViewCalls("jobtape-live", threads=THREADS, limit=read_limit)
        self._committed = store.committed
        self.commits = commits
        self.requests = Waiters()
        """Requests that wait for a job, and sleep until the projector has committed an event of it."""
        commits.callbacks.append(self._on_commit)
        self.tail = HistoryTail(store, self._reads, commits)

    def check_room(self) -> None:
        """Raise TooBusy when no further listener is admitted."""
        if self.tail.ended:
            raise TooBusy("this process is about to stop: connect again, and another one answers")
        if self.now.total() >= self._most:
            raise TooBusy(f"{self._most} are listening here already (JOBTAPE_MAX_LISTENERS): try again later")

    def notice_stop(self) -> None:
        """Notice from now on that the process is asked to stop. Call it at each request: the server has its signal
        handlers by then, and a stream that is opened after the signal ends.
        """
        self._signals.install()

    @contextmanager
    def admit(self, kind: Kind) -> Iterator[None]:
        """Count a listener inside the block, and let come what wakes it. Raises TooBusy."""
        self.check_room()
        self.notice_stop()
        self.now[kind] += 1
        try:
            if kind == "wait":
                with self._notices():
                    yield
            else:
                with self.tail.held():
                    yield
        finally:
            self.now[kind] -= 1
            if kind != "wait":  # these are short, and there may be hundreds in a second
                self._memory_trimmer.stream_ended()

    def follower(self, selection: Selection) -> Follower:
        """Return a follower, to be used inside ``admit``."""
        return Follower(self.tail, self._committed, self._reads, selection)

    @contextmanager
    def on_stop(self, *calls: Callable[[], None]) -> Iterator[None]:
        """Make ``calls`` when the process is asked to stop inside the block."""
        self._on_stop.update(calls)
        try:
            yield
        finally:
            self._on_stop.difference_update(calls)

    def end(self) -> None:
        """End all streams and answer all waiting requests, because the process was asked to stop."""
        self.tail.end()
        self.requests.wake_all()
        for call in tuple(self._on_stop):
            call()

    async def close(self) -> None:
        """End the tail and the threads."""
        self._signals.remove()
        self._memory_trimmer.close()
        await self.tail.close()
        await self.commits.close()
        await self._reads.close()

    @contextmanager
    def _notices(self) -> Iterator[None]:
        self.commits.acquire()
        try:
            yield
        finally:
            self.commits.release()

    def _on_commit(self, jobs: Mapping[str, bool] | None) -> None:
        if jobs is None:
            self.requests.wake_all()
        else:
            self.requests.wake_jobs(jobs)
