"""Timers that all take the same time, so that one timer of the event loop is enough for all of them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class SameDelay:
    """Ends futures of the running event loop ``seconds`` after they were added, with ``end``, unless they are done."""

    def __init__(self, seconds: float, end: Callable[["asyncio.Future[Any]"], object]) -> None:
        self.seconds = seconds
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._futures: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._planned = False

    def add(self, future: "asyncio.Future[Any]") -> None:
        """End ``future`` after the delay."""
        self._futures.append((self._loop.time() + self.seconds, future))
        if not self._planned:
            self._planned = True
            self._loop.call_later(self.seconds, self._end_futures)

    def _end_futures(self) -> None:
        now, futures = self._loop.time(), self._futures
        while futures and (futures[0][1].done() or futures[0][0] <= now):
            _, future = futures.popleft()
            if not future.done():
                self._end(future)
        self._planned = bool(futures)
        if futures:
            self._loop.call_at(futures[0][0], self._end_futures)
