"""Runs asynchronous calls for blocking code, on an event loop in a thread of its own.

The thread is a daemon, so a program that forgets to close it can still end. A forked child does not inherit the thread;
it starts its own at the first call.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from jobtape.client.errors import ClientClosed, ClientForked
from jobtape.process import forks
from jobtape.process.loop_calls import CallLost, CallNotStarted, LoopCaller

T = TypeVar("T")


class Portal:
    """An event loop in a thread. Use ``call`` from any other thread; ``close`` cancels what still runs."""

    def __init__(self) -> None:
        self._closed = False
        self._lock = threading.Lock()
        self._handover: LoopCaller
        self._end: asyncio.Event
        self._thread: threading.Thread | None = None
        self._inherited: list[LoopCaller] = []
        """Callers of the parent process, after a fork: kept, because their destructors would close them."""
        self._start()
        forks.on_fork(self, Portal._reset_after_fork)

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Return the result of ``await function(*args, **kwargs)``.

        When this call is interrupted, for example by Ctrl-C, the function is cancelled and has ended before this
        raises. Raises ClientClosed when the portal is closed before or during the call.
        """
        try:
            return self._here().call_blocking(function, *args, **kwargs)
        except (CallNotStarted, CallLost):
            raise ClientClosed from None

    @contextmanager
    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[Iterator[T]]:
        """Give an iterator over ``items``; close the generator at the end of the block.

        The iterator raises ClientForked in a child that was forked after the iteration began.
        """
        begun = os.getpid()
        try:
            yield self._items(items, begun)
        finally:
            if os.getpid() == begun:
                with suppress(ClientClosed):  # the loop has ended and closed it
                    self.call(items.aclose)

    def close(self) -> None:
        """Cancel what still runs and end the thread. A second call does nothing."""
        with self._lock:
            thread = self._thread
            if not self._closed and thread is not None:
                self._handover.loop.call_soon_threadsafe(self._end.set)
            self._closed = True
        if thread is not None:
            thread.join()

    def _here(self) -> LoopCaller:
        with self._lock:
            if self._thread is None and not self._closed:
                self._start()
            return self._handover

    def _start(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(started),), name="jobtape-client", daemon=True
        )
        self._thread.start()
        started.wait()

    def _reset_after_fork(self) -> None:
        """In a forked child: forget the parent's thread and loop."""
        self._lock = threading.Lock()  # another thread may have held it
        self._thread = None
        self._inherited.append(self._handover)
        forks.detach_loop(self._handover.loop, sockets=True)

    async def _serve(self, started: threading.Event) -> None:
        self._handover, self._end = LoopCaller(), asyncio.Event()
        started.set()
        await self._end.wait()
        self._handover.close()

    def _items(self, items: AsyncGenerator[T, None], begun: int) -> Iterator[T]:
        async def following() -> list[T]:
            # Not anext: its StopAsyncIteration cannot leave a coroutine.
            async for one in items:
                return [one]
            return []

        while os.getpid() == begun and (found := self.call(following)):
            yield found[0]
        if os.getpid() != begun:
            raise ClientForked
