"""HTTP connection pools, one for each event loop, because a connection can be used only on the loop that opened it."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import httpx

from jobtape.process import forks
from jobtape.process.loop_calls import CallLost, CallNotStarted, LoopCaller

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that ``close`` waits for an event loop that is blocked."""


class Pools:
    """A pool for each event loop; ``make`` creates one. Several threads and loops may use it at the same time."""

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self.closed = False
        self._make = make
        self._by_loop: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        self._lock = threading.Lock()
        self._sockets: list[Any] = []
        self._inherited: list[dict[asyncio.AbstractEventLoop, httpx.AsyncClient]] = []
        """Pools of the parent process, after a fork: kept, because their destructors would use the parent's loops."""
        forks.on_fork(self, Pools._reset_after_fork)

    async def trace(self, what: str, more: dict[str, Any]) -> None:
        """Remember the sockets, which httpx does not expose. Pass this to each request as the extension ``trace``."""
        if what == "connection.connect_tcp.complete":
            self._sockets = [each for each in self._sockets if each.fileno() >= 0]
            self._sockets.append(more["return_value"].get_extra_info("socket"))

    def _reset_after_fork(self) -> None:
        """In a forked child: close the inherited sockets and start with no pools."""
        self._lock = threading.Lock()  # another thread may have held it
        forks.close_in_child(*(each.fileno() for each in self._sockets))
        self._sockets = []
        self._inherited.append(self._by_loop)
        self._by_loop = {}

    def here(self) -> httpx.AsyncClient:
        """Return the pool of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            made = self._make()
            with self._lock:
                # Nothing can be awaited on a closed loop, so these pools are dropped; their sockets close with them.
                for ended in [each for each in self._by_loop if each.is_closed()]:
                    del self._by_loop[ended]
                found = self._by_loop[loop] = made
        return found

    async def close(self) -> None:
        """Close all connections, each on its own loop."""
        self.closed = True
        with self._lock:
            pools, self._by_loop = self._by_loop, {}
        for loop, pool in pools.items():
            with suppress(CallNotStarted, CallLost):
                await LoopCaller(loop, start_limit=CLOSE_TIMEOUT).call(pool.aclose)
