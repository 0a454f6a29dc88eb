"""Asynchronous calls made from code that is not: on a loop in a thread of its own.

The thread is a daemon: a program that forgets to close it ends all the same.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

TO_END: Final = 5.0
"""Seconds that a cancelled call may take to its end."""


class Portal:
    """``call`` from any thread but its own; ``close`` ends what still runs."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        started = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(started),), name="jobtape-client", daemon=True
        )
        self._thread.start()
        started.wait()

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """What ``await function(*args, **kwargs)`` gives. Broken off here, by Ctrl-C say, it is cancelled there, and
        has ended when this raises.
        """
        outcome: Future[T] = Future()
        tasks: list[asyncio.Task[None]] = []

        async def run() -> None:
            try:
                outcome.set_result(await function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  # it is raised where it was called
                outcome.set_exception(error)

        def begin() -> None:
            tasks.append(self._loop.create_task(run()))
            # One that is cancelled before its first step never gets to its own end.
            tasks[0].add_done_callback(lambda _: outcome.cancel())

        def end() -> None:
            tasks[0].cancel()

        self._loop.call_soon_threadsafe(begin)
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():
                self._loop.call_soon_threadsafe(end)
                wait([outcome], TO_END)
            raise

    @contextmanager
    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[Iterator[T]]:
        """The items one by one; afterwards the generator is closed."""
        try:
            yield self._items(items)
        finally:
            self.call(items.aclose)

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        await self._end.wait()

    def _items(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        async def following() -> list[T]:
            # Not anext: its StopAsyncIteration cannot leave a coroutine.
            async for one in items:
                return [one]
            return []

        while found := self.call(following):
            yield found[0]
