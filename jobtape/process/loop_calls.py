"""Runs coroutine functions on an event loop for callers on another event loop, or on none.

Theory of operation. A call is *pending* until the loop takes it; then it is *started*. A pending call can be withdrawn,
and then it is certain that nothing was done (``CallNotStarted``). A started call is cancelled when its caller is. What
it did is unknown when the loop ends during the call (``CallLost``). The state of a ``concurrent.futures.Future``
decides between both sides, because only one of them can change it.
"""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from concurrent import futures
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

POLL_INTERVAL: Final = 0.25
"""Seconds between two checks whether the loop still runs."""
CANCEL_TIMEOUT: Final = 5.0
"""Seconds for which a blocking caller waits for a call that it has cancelled."""


class CallNotStarted(Exception):
    """The loop did not take the call and will not: nothing was done. The text says why."""


class CallLost(Exception):
    """The loop, or what served the call there, ended during the call: what the call did is unknown."""


class LoopCaller:
    """Calls functions on ``loop`` (default: the running one) from any thread or event loop of this process.

    ``start_limit``: seconds after which a call that the loop has not taken is withdrawn; None waits forever.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, start_limit: float | None = None) -> None:
        self.loop = asyncio.get_running_loop() if loop is None else loop
        self._start_limit = start_limit
        # Calls run in this context, so that a task that a call starts does not keep its caller's context.
        self._context = contextvars.copy_context()
        self._running: set[_Call[Any]] = set()
        self._closed = False

    def is_here(self) -> bool:
        """Return whether the caller runs on the loop itself."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Return the result of ``await function(*args, **kwargs)``, run on the loop. A cancellation is passed on.

        Raises CallNotStarted and CallLost.
        """
        if self.is_here():
            return await function(*args, **kwargs)
        call = self._call(function, args, kwargs)
        waiter = asyncio.wrap_future(call.outcome)
        try:
            while not waiter.done():
                self._check(call)
                await asyncio.wait({waiter}, timeout=POLL_INTERVAL)
            return waiter.result()
        finally:
            if not waiter.done():
                waiter.cancel()
                call.cancel()

    def call_blocking(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Do the same as ``call`` for code that cannot await.

        When it is interrupted, for example by Ctrl-C, the call is cancelled and has ended before this raises.
        """
        if self.is_here():
            raise CallNotStarted("a blocking call on its own event loop would wait for itself")
        call = self._call(function, args, kwargs)
        try:
            while not call.outcome.done():
                self._check(call)
                futures.wait([call.outcome], POLL_INTERVAL)
            return call.outcome.result()
        except BaseException:
            if not call.outcome.done():
                call.cancel()
                futures.wait([call.outcome], CANCEL_TIMEOUT)
            raise

    def close(self) -> None:
        """End running calls with ``CallLost`` and take no more. Must be called on the loop."""
        self._closed = True
        for call in tuple(self._running):
            call.cancel()

    def _call(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> "_Call[T]":
        call = _Call(self.loop, lambda: function(*args, **kwargs))

        def start() -> None:
            if not call.outcome.set_running_or_notify_cancel():
                return  # it was withdrawn
            if self._closed:
                call.outcome.set_exception(CallNotStarted("it ended just now"))
                return
            self._running.add(call)
            call.outcome.add_done_callback(lambda _: self._running.discard(call))
            call.start()

        try:
            self.loop.call_soon_threadsafe(start, context=self._context)
        except RuntimeError:
            raise CallNotStarted("its event loop has ended") from None
        return call

    def _check(self, call: "_Call[Any]") -> None:
        """Raise CallNotStarted or CallLost when the call cannot end any more."""
        if not self.loop.is_running():
            if call.outcome.cancel():
                raise CallNotStarted("its event loop is not running")
            if not call.outcome.done():
                raise CallLost
        limit = self._start_limit
        if limit is not None and time.monotonic() > call.made + limit and call.outcome.cancel():
            raise CallNotStarted(f"its event loop took no calls for {limit:g} s: something blocks it")


class _Call(Generic[T]):
    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[T]]) -> None:
        self.outcome: futures.Future[T] = futures.Future()
        self.made = time.monotonic()
        self._loop = loop
        self._function = function
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run the function. Must be called on the loop."""
        self._task = self._loop.create_task(self._run(), name="call from another thread or loop")
        # A task that is cancelled before its first step does not run at all.
        self._task.add_done_callback(lambda _: None if self.outcome.done() else self.outcome.set_exception(CallLost()))

    def cancel(self) -> None:
        """Withdraw the call, or cancel it when it has started. Can be called from any thread."""
        if not self.outcome.cancel():
            with suppress(RuntimeError):  # the loop has ended, and the call with it
                self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())

    async def _run(self) -> None:
        try:
            self.outcome.set_result(await self._function())
        except asyncio.CancelledError:
            self.outcome.set_exception(CallLost())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was called
            self.outcome.set_exception(error)
