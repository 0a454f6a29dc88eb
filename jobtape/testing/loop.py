"""An event loop in a thread of its own, whose timers follow the clock that tests can move.

It knows when it is idle: nothing is left to do but to wait for timers, other threads or the network.
"""

import asyncio
import selectors
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from jobtape.process import clock
from jobtape.process.loop_calls import LoopCaller

T = TypeVar("T")

PAUSE: Final = 0.001
"""Seconds between two looks at the threads."""
JOIN_TIMEOUT: Final = 10.0
"""Seconds for the end of the thread."""


class _Selector(selectors.DefaultSelector):
    """Calls ``on_idle`` when the loop is about to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.on_idle: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            self.on_idle()
        return super().select(timeout)


class MovableLoop(asyncio.SelectorEventLoop):
    """The loop. ``calls_in_threads``: how many of its calls run in threads."""

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.on_idle = self._on_idle
        self.calls_in_threads = 0
        self._in_threads: set[object] = set()
        """One for each call that has begun and not ended, also of those that were cancelled since."""
        self._waiting_for_idle: list[asyncio.Future[None]] = []

    def time(self) -> float:
        """Return the time of timers. Those that the clock has passed are due at once when it was moved."""
        return clock.monotonic()

    def run_in_executor(  # type: ignore[override]  # the types of the arguments are the caller's
        self, executor: Any, func: Any, *args: Any
    ) -> "asyncio.Future[Any]":
        """Run a call in a thread, and count it until it has ended."""
        self.calls_in_threads += 1

        def run(*args: Any) -> Any:
            self._in_threads.add(token := object())
            try:
                return func(*args)
            finally:
                self._in_threads.discard(token)

        call = super().run_in_executor(executor, run, *args)
        call.add_done_callback(self._note_end)
        return call

    async def idle(self) -> None:
        """Return when nothing is left to do but to wait."""
        waiter: asyncio.Future[None] = self.create_future()
        self._waiting_for_idle.append(waiter)
        await waiter

    async def threads_ended(self) -> None:
        """Return when no call runs in a thread any more, not even one that was cancelled."""
        while self._in_threads or self.calls_in_threads:  # noqa: ASYNC110 - threads set no asyncio.Event
            await asyncio.sleep(PAUSE)

    def _note_end(self, _: object) -> None:
        self.calls_in_threads -= 1

    def _on_idle(self) -> None:
        waiting, self._waiting_for_idle = self._waiting_for_idle, []
        for waiter in waiting:
            # It ends the wait that is about to begin.
            self.call_soon_threadsafe(_end, waiter)


class LoopThread:
    """A thread with a ``MovableLoop``, which runs ``start`` to ``stop``."""

    def __init__(self, name: str) -> None:
        self.loop = MovableLoop()
        self._caller = LoopCaller(self.loop)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Return the result of ``await function(*args)``, run on the loop, from another loop."""
        return await self._caller.call(function, *args)

    def call_blocking(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Return the result of ``await function(*args)``, run on the loop, and block this thread until then."""
        return self._caller.call_blocking(function, *args)

    def stop(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            pending = asyncio.all_tasks(self.loop)
            for task in pending:
                task.cancel()
            if pending:
                self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


def _end(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
