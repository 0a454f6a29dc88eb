"""The subscription that a user holds: an iterator of events, each acknowledged when the loop's body has ended."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.messages.delivered_event import DeliveredEvent

ACKNOWLEDGE_TIMEOUT: Final = 10.0
"""Seconds for acknowledging the last event when the subscription is left."""

Callback = Callable[[DeliveredEvent], Awaitable[object]] | Callable[[DeliveredEvent], object]


class EventSource(Protocol):
    """Where the events of a subscription come from."""

    async def open(self) -> None:
        """Start. Events that happen from now on are delivered."""

    async def receive(self) -> DeliveredEvent:
        """Wait for the next event and return it. A cancelled call loses nothing."""

    async def acknowledge(self, event: DeliveredEvent) -> None:
        """Record that ``event`` is processed and need not be delivered again."""

    async def close(self) -> None:
        """Release everything. Events that are not acknowledged are delivered again if the source can do that."""


class Subscription:
    """``async with subscription as events: async for event in events: ...``, or ``await subscription.run(callback)``.

    An event is acknowledged when the next one is requested, the last one when the ``async with`` ends without an
    exception. If it ends with an exception (of the body, or a cancellation), the last event stays unacknowledged, and
    a subscription that has a name gets it again.
    """

    def __init__(self, make_source: Callable[[], EventSource]) -> None:
        self._make_source = make_source
        self._source: EventSource | None = None
        self._unacknowledged: DeliveredEvent | None = None
        self._acknowledging: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receiving = False

    async def __aenter__(self) -> "Subscription":
        """Start to receive. Raises JobtapeError when broker or database do not answer, or refuse."""
        if self._source is not None:
            raise JobtapeError("this subscription is entered already: make another one with jobtape.subscribe(...)")
        self._loop = asyncio.get_running_loop()
        self._source = source = self._make_source()
        try:
            await source.open()
        except BaseException:
            self._source = None
            await source.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Acknowledge the last event unless there is an exception, and stop."""
        assert self._source is not None
        self._check_loop()
        try:
            if kind is None:
                async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT):
                    await self._acknowledge()
        except TimeoutError:
            raise JobtapeError(
                f"the last event was not acknowledged within {ACKNOWLEDGE_TIMEOUT:g} s and may be delivered again: the "
                "log says what does not answer"
            ) from None
        finally:
            source, self._source, self._unacknowledged = self._source, None, None
            if self._acknowledging is not None:
                self._acknowledging.cancel()
                await asyncio.gather(self._acknowledging, return_exceptions=True)
                self._acknowledging = None
            await source.close()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> DeliveredEvent:
        """Acknowledge the previous event and wait for the next one. A cancelled call (by a timeout) may be repeated.

        Raises EventsMissed if ``on_gap`` says so.
        """
        if self._source is None:
            raise JobtapeError("iterate inside `async with jobtape.subscribe(...) as subscription:`")
        self._check_loop()
        if self._receiving:
            raise JobtapeError(
                "one loop for each subscription: subscribe once for each loop, with the same name to share the work"
            )
        self._receiving = True
        try:
            await self._acknowledge()
            self._unacknowledged = await self._source.receive()
        finally:
            self._receiving = False
        return self._unacknowledged

    async def run(self, callback: Callback) -> None:
        """Call ``callback`` with each event, one after the other, until it raises or this call is cancelled.

        An ``async def`` is awaited; a ``def`` runs in a thread and may block.
        """
        asynchronous = inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
            getattr(callback, "__call__", None)  # noqa: B004  # an object whose call is a coroutine function
        )
        async with self:
            async for event in self:
                answer = callback(event) if asynchronous else await asyncio.to_thread(callback, event)
                if inspect.isawaitable(answer):
                    await answer

    def _check_loop(self) -> None:
        """Refuse another event loop, on which waiting for this loop's connections would never end."""
        if asyncio.get_running_loop() is not self._loop:
            raise JobtapeError(
                "this subscription was entered on another event loop: enter and iterate over it on one, "
                "or call jobtape.subscribe(...) again for each event loop and thread"
            )

    async def _acknowledge(self) -> None:
        """Acknowledge the last event. It continues when the caller is cancelled, so no event is acknowledged twice."""
        if self._unacknowledged is None or self._source is None:
            return
        if self._acknowledging is None:
            self._acknowledging = asyncio.create_task(
                self._source.acknowledge(self._unacknowledged), name="acknowledge"
            )
        await asyncio.shield(self._acknowledging)
        self._unacknowledged = self._acknowledging = None
