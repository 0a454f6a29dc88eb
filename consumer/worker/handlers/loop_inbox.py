"""Calls functions on an event loop for other threads."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context


class LoopInbox:
    """Calls that wait for ``loop``: one wake-up is for all that come until it has begun with them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._woken = False
        self._context = copy_context()  # otherwise the calls would run in that of the thread that wakes the loop

    def put(self, call: Callable[[], object]) -> None:
        """Call ``call`` on the loop, after those that were put before. Can be called from any thread.

        Raises RuntimeError when the loop is closed.
        """
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._run, context=self._context)

    def _run(self) -> None:
        self._woken = False  # first, so that a call that comes from now on wakes the loop again
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            if self._calls:  # a call has raised
                self._loop.call_soon(self._run)
