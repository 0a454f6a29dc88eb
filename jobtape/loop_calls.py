"""Runs coroutine functions on an event loop for callers that are on another one, or on none.

Theory of operation. A call is *pending* until the loop takes it, and then *begun*. One that is pending can be
withdrawn: then it is certain that nothing was done (``NotBegun``). One that has begun is cancelled when its caller is,
and what it did is not known when the loop ends with it (``Lost``). The state of a ``concurrent.futures.Future`` is the
switch that only one side can win.
"""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from concurrent import futures
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

LOOK: Final = 0.25
"""Seconds between two looks whether the loop still runs."""
TO_END: Final = 5.0
"""Seconds that a cancelled call may take to its end while its caller waits for that."""


class NotBegun(Exception):
    """The loop has not taken the call, and will not: nothing was done. The text says why."""


class Lost(Exception):
    """The loop, or whoever served the call there, ended while the call ran: what it did is not known."""


class Handover:
    """Calls on ``loop``, by default the running one, from any thread or loop of this process.

    ``start_limit``: seconds after which a call that the loop has not taken is withdrawn; None waits for ever.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, start_limit: float | None = None) -> None:
        self.loop = asyncio.get_running_loop() if loop is None else loop
        self._start_limit = start_limit
        # Calls run in the context in which this was made: a task that one of them starts must not keep its caller's.
        self._context = contextvars.copy_context()
        self._running: set[_Call[Any]] = set()
        self._closed = False

    def is_here(self) -> bool:
        """Whether the caller runs on the loop itself."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """What ``await function(*args, **kwargs)`` gives on the loop. Cancelling this cancels that. Raises NotBegun and
        Lost.
        """
        if self.is_here():
            return await function(*args, **kwargs)
        call = self._begin(function, args, kwargs)
        waiter = asyncio.wrap_future(call.outcome)
        try:
            while not waiter.done():
                self._check(call)
                await asyncio.wait({waiter}, timeout=LOOK)
            return waiter.result()
        finally:
            if not waiter.done():
                waiter.cancel()
                call.cancel()

    def call_blocking(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """``call`` for code that cannot await; not for code on the loop, which would wait for itself. Interrupted, by
        Ctrl-C say, it returns when the call has ended too.
        """
        if self.is_here():
            raise NotBegun("a blocking call on the loop that has to do it would wait for itself")
        call = self._begin(function, args, kwargs)
        try:
            while not call.outcome.done():
                self._check(call)
                futures.wait([call.outcome], LOOK)
            return call.outcome.result()
        except BaseException:
            if not call.outcome.done():
                call.cancel()
                futures.wait([call.outcome], TO_END)
            raise

    def close(self) -> None:
        """End what runs with ``Lost``, and take no more calls. To be called on the loop."""
        self._closed = True
        for call in tuple(self._running):
            call.cancel()

    def _begin(
        self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> "_Call[T]":
        call = _Call(self.loop, lambda: function(*args, **kwargs))

        def begin() -> None:
            if self._closed:
                call.refuse("it ended just now")
            elif call.begin():
                self._running.add(call)
                call.outcome.add_done_callback(lambda _: self._running.discard(call))

        try:
            self.loop.call_soon_threadsafe(begin, context=self._context)
        except RuntimeError:
            raise NotBegun("its event loop has ended") from None
        return call

    def _check(self, call: "_Call[Any]") -> None:
        """Raises NotBegun or Lost when the call will not come to its end."""
        if not self.loop.is_running():
            if call.outcome.cancel():
                raise NotBegun("its event loop does not run (any more)")
            if not call.outcome.done():
                raise Lost
        limit = self._start_limit
        if limit is not None and time.monotonic() > call.made + limit and call.outcome.cancel():
            raise NotBegun(f"its event loop took no calls for {limit:g} s: something blocks it")


class _Call(Generic[T]):
    """One call. All but ``cancel`` is for the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[T]]) -> None:
        self.outcome: futures.Future[T] = futures.Future()
        self.made = time.monotonic()
        self._loop = loop
        self._function = function
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> bool:
        """Run it, unless it was withdrawn."""
        if not self.outcome.set_running_or_notify_cancel():
            return False
        self._task = self._loop.create_task(self._run(), name="call from another thread or loop")
        # A task that is cancelled before its first step never gets to its own end.
        self._task.add_done_callback(lambda _: None if self.outcome.done() else self.outcome.set_exception(Lost()))
        return True

    def refuse(self, why: str) -> None:
        """Do not run it."""
        if self.outcome.set_running_or_notify_cancel():
            self.outcome.set_exception(NotBegun(why))

    def cancel(self) -> None:
        """Withdraw it, or cancel it when it has begun; callable from any thread."""
        if not self.outcome.cancel():
            with suppress(RuntimeError):  # the loop has ended, and the call with it
                self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())

    async def _run(self) -> None:
        try:
            self.outcome.set_result(await self._function())
        except asyncio.CancelledError:
            self.outcome.set_exception(Lost())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was called
            self.outcome.set_exception(error)
