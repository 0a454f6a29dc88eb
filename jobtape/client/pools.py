"""HTTP connections, a pool for each event loop that uses them: a connection can be used on its own loop alone."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import httpx

from jobtape import forks
from jobtape.loop_calls import Handover, Lost, NotBegun

CLOSE_LIMIT: Final = 5.0
"""Seconds that a loop which something blocks may keep ``close`` waiting."""


class Pools:
    """``make`` makes a pool. Safe to use from several threads and loops at once."""

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self.closed = False
        self._make = make
        self._by_loop: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        self._turn = threading.Lock()
        self._sockets: list[Any] = []
        self._left: list[dict[asyncio.AbstractEventLoop, httpx.AsyncClient]] = []
        """Of the process that this one was forked from. Kept, since at their end they would use their event loops."""
        forks.in_child(self, Pools._leave)

    async def trace(self, what: str, more: dict[str, Any]) -> None:
        """Remember the sockets, which httpx does not show; to be given to each request as the extension ``trace``."""
        if what == "connection.connect_tcp.complete":
            self._sockets = [each for each in self._sockets if each.fileno() >= 0]
            self._sockets.append(more["return_value"].get_extra_info("socket"))

    def _leave(self) -> None:
        """In a forked child, make connections of its own from here on."""
        self._turn = threading.Lock()  # another thread may have held it
        forks.close_here(*(each.fileno() for each in self._sockets))
        self._sockets = []
        self._left.append(self._by_loop)
        self._by_loop = {}

    def here(self) -> httpx.AsyncClient:
        """The pool of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            made = self._make()
            with self._turn:
                # Their sockets end with them: nothing can be awaited on a loop that has ended.
                for ended in [each for each in self._by_loop if each.is_closed()]:
                    del self._by_loop[ended]
                found = self._by_loop[loop] = made
        return found

    async def close(self) -> None:
        """End all connections, each on its own loop."""
        self.closed = True
        with self._turn:
            pools, self._by_loop = self._by_loop, {}
        for loop, pool in pools.items():
            with suppress(NotBegun, Lost):
                await Handover(loop, start_limit=CLOSE_LIMIT).call(pool.aclose)
