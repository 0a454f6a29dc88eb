"""Timers that all take the same time, so that one timer of the event loop is enough for all of them."""

import asyncio
from collections import deque


class SameDelay:
    """Ends waits of ``seconds`` on the running event loop."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._waits: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._planned = False

    def wait(self) -> "asyncio.Future[bool]":
        """Return a future with the result False after the delay, unless the caller sets its result before."""
        wait: asyncio.Future[bool] = self._loop.create_future()
        self._waits.append((self._loop.time() + self.seconds, wait))
        if not self._planned:
            self._planned = True
            self._loop.call_later(self.seconds, self._end_waits)
        return wait

    def _end_waits(self) -> None:
        now = self._loop.time()
        while self._waits and (self._waits[0][1].done() or self._waits[0][0] <= now):
            _, wait = self._waits.popleft()
            if not wait.done():
                wait.set_result(False)
        self._planned = bool(self._waits)
        if self._waits:
            self._loop.call_at(self._waits[0][0], self._end_waits)
