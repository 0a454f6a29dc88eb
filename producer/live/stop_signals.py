"""Notices that the process is asked to stop, whichever server it runs in.

Theory of operation. A server that stops waits for its open requests, and notifies an application only afterwards:
streams would never end, and uvicorn waits for them without a limit unless it was given one. So, once somebody listens,
a handler of ours runs before the one that the server has set for the signal: it ends the streams, and then the server
does what it does.
Nothing is done where there is no such handler, or the loop does not run in the main thread.
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
    """``call`` is made in the loop in which ``listen`` was, at the first signal."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._ours: dict[int, tuple[_Handler, _Handler]] = {}
        self._listening = False

    def listen(self) -> None:
        """From now on; again does nothing."""
        if self._listening:
            return
        self._listening = True
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            before = signal.getsignal(number)
            if callable(before):
                ours = self._before(before, loop)
                self._ours[number] = (ours, before)
                signal.signal(number, ours)

    def leave(self) -> None:
        """Not any more."""
        for number, (ours, before) in self._ours.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, before)
        self._ours.clear()

    def _before(self, handler: _Handler, loop: asyncio.AbstractEventLoop) -> _Handler:
        def handle(number: int, frame: FrameType | None) -> Any:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._call)
            return handler(number, frame)

        return handle
