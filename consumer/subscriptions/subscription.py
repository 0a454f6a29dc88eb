"""A subscription as its user holds it: an iterator of events, each settled once the loop's body has ended."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Protocol

from jobtape.schemas.delivered_event import DeliveredEvent
from jobtape.schemas.errors import JobtapeError

SETTLE_LIMIT: Final = 10.0
"""Seconds that the last event's settling may take when the subscription is left."""

Callback = Callable[[DeliveredEvent], Awaitable[object]] | Callable[[DeliveredEvent], object]


class EventSource(Protocol):
    """Where the events come from. ``hear`` may be cancelled and called again; nothing is lost by that."""

    async def open(self) -> None:
        """Start; what happens from here on is delivered."""

    async def hear(self) -> DeliveredEvent:
        """The next one, however long it takes."""

    async def settle(self, received: DeliveredEvent) -> None:
        """It is done with, and need not come again."""

    async def close(self) -> None:
        """Give back everything; what is not settled comes again, where it can."""


class Subscription:
    """``async with subscription as events: async for event in events: ...``, or ``await subscription.run(callback)``.

    An event is settled when the next one is asked for, and the last one when the ``async with`` is left without an
    exception. Left by an exception (of the body, or a cancelling), it stays unsettled: a subscription that has a name
    gets it again.
    """

    def __init__(self, make: Callable[[], EventSource]) -> None:
        self._make = make
        self._source: EventSource | None = None
        self._unsettled: DeliveredEvent | None = None
        self._settling: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = False

    async def __aenter__(self) -> "Subscription":
        """Begin to listen. Raises JobtapeError when broker or database don't answer, or refuse."""
        if self._source is not None:
            raise JobtapeError("this subscription is entered already: make another one with jobtape.subscribe(...)")
        self._loop = asyncio.get_running_loop()
        self._source = source = self._make()
        try:
            await source.open()
        except BaseException:
            self._source = None
            await source.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Settle the last one, unless an exception leaves, and stop listening."""
        assert self._source is not None
        self._check_loop()
        try:
            if kind is None:
                await self._settle_at_last()
        finally:
            source, self._source, self._unsettled = self._source, None, None
            if self._settling is not None:
                self._settling.cancel()
                await asyncio.gather(self._settling, return_exceptions=True)
                self._settling = None
            await source.close()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> DeliveredEvent:
        """The next event, and the one before is settled. It may be cancelled, by a time-out for instance, and called
        again. Raises EventsMissed where ``on_gap`` asks for that.
        """
        if self._source is None:
            raise JobtapeError("iterate inside `async with jobtape.subscribe(...) as subscription:`")
        self._check_loop()
        if self._asked:
            raise JobtapeError(
                "one loop a subscription: subscribe once for each, under the same name to share the work"
            )
        self._asked = True
        try:
            await self._settle()
            self._unsettled = await self._source.hear()
        finally:
            self._asked = False
        return self._unsettled

    async def run(self, callback: Callback) -> None:
        """Call ``callback`` with each event, one after the other, until it raises or this is cancelled.

        An ``async def`` is awaited; a ``def`` runs in a thread and may block.
        """
        asynchronous = inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
            getattr(callback, "__call__", None)  # noqa: B004  # an object whose call is a coroutine function
        )
        async with self:
            async for received in self:
                answer = callback(received) if asynchronous else await asyncio.to_thread(callback, received)
                if inspect.isawaitable(answer):
                    await answer

    def _check_loop(self) -> None:
        """Connections cannot be used on another event loop than their own: a wait there would never end."""
        if asyncio.get_running_loop() is not self._loop:
            raise JobtapeError(
                "this subscription was entered on another event loop: enter and iterate over it on one, "
                "or call jobtape.subscribe(...) again for each event loop and thread"
            )

    async def _settle(self) -> None:
        """Goes on by itself when whoever waits for it is cancelled: an acknowledgement is not to be sent twice."""
        if self._unsettled is None or self._source is None:
            return
        if self._settling is None:
            self._settling = asyncio.create_task(self._source.settle(self._unsettled), name="settle")
        await asyncio.shield(self._settling)
        self._unsettled = self._settling = None

    async def _settle_at_last(self) -> None:
        try:
            async with asyncio.timeout(SETTLE_LIMIT):
                await self._settle()
        except TimeoutError:
            raise JobtapeError(
                f"the last event was not settled within {SETTLE_LIMIT:g} s and may come again: see the log for what "
                "does not answer"
            ) from None
