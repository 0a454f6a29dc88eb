"""Asynchronous calls made from code that is not: on a loop in a thread of its own.

The thread is a daemon: a program that forgets to close it ends all the same. A forked child has no such thread, and
starts its own when it first calls.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from jobtape import forks
from jobtape.client.errors import ClientClosed, ClientForked
from jobtape.loop_calls import Handover, Lost, NotBegun

T = TypeVar("T")


class Portal:
    """``call`` from any thread but its own; ``close`` ends what still runs."""

    def __init__(self) -> None:
        self._closed = False
        self._turn = threading.Lock()
        self._handover: Handover
        self._end: asyncio.Event
        self._thread: threading.Thread | None = None
        self._left: list[Handover] = []
        """Of the process that this one was forked from. Kept, since at its end it would be closed there too."""
        self._start()
        forks.in_child(self, Portal._leave)

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """What ``await function(*args, **kwargs)`` gives. Broken off here, by Ctrl-C say, it is cancelled there, and
        has ended when this raises. Raises ClientClosed when the portal is closed, or is meanwhile.
        """
        try:
            return self._here().call_blocking(function, *args, **kwargs)
        except (NotBegun, Lost):
            raise ClientClosed from None

    @contextmanager
    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[Iterator[T]]:
        """The items one by one; afterwards the generator is closed. Raises ClientForked in a child that was forked
        meanwhile.
        """
        begun = os.getpid()
        try:
            yield self._items(items, begun)
        finally:
            if os.getpid() == begun:
                with suppress(ClientClosed):  # the end of the loop has closed it
                    self.call(items.aclose)

    def close(self) -> None:
        """Cancel what still runs, and end the thread; a second time does nothing."""
        with self._turn:
            thread = self._thread
            if not self._closed and thread is not None:
                self._handover.loop.call_soon_threadsafe(self._end.set)
            self._closed = True
        if thread is not None:
            thread.join()

    def _here(self) -> Handover:
        with self._turn:
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

    def _leave(self) -> None:
        """In a forked child."""
        self._turn = threading.Lock()  # another thread may have held it
        self._thread = None
        self._left.append(self._handover)
        forks.leave_loop(self._handover.loop, sockets=True)

    async def _serve(self, started: threading.Event) -> None:
        self._handover, self._end = Handover(), asyncio.Event()
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
