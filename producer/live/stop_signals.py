"""Notices that the process is asked to stop, whichever server it runs in.

Theory of operation. A server that stops waits for its open requests first, and notifies the application afterwards. So
streams would never end, and uvicorn waits for them without limit unless it was given one. Therefore, from the
first request on, a handler of ours runs before the server's own: it ends the streams, and then the server
proceeds as usual. Nothing is installed when there is no such handler or the loop is not in the main thread.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_Handler = Callable[[int, FrameType | None], Any]


class StopSignals:
    """Calls ``on_stop`` at a signal, in the loop in which ``install`` was called."""

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._handlers: dict[int, tuple[_Handler, _Handler]] = {}
        """By signal: our handler, and the one that it replaces."""
        self._installed = False

    def install(self) -> None:
        """Install the handlers. A second call does nothing."""
        if self._installed:
            return
        self._installed = True
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            previous = signal.getsignal(number)
            if callable(previous):
                handler = self._before(previous, loop)
                self._handlers[number] = (handler, previous)
                signal.signal(number, handler)

    def remove(self) -> None:
        """Restore the previous handlers, where ours are still installed."""
        for number, (handler, previous) in self._handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, previous)
        self._handlers.clear()

    def _before(self, previous: _Handler, loop: asyncio.AbstractEventLoop) -> _Handler:
        def handle(number: int, frame: FrameType | None) -> Any:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._on_stop)
            return previous(number, frame)

        return handle
