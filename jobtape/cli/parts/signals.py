"""Handles SIGTERM and SIGINT: the first stops the process in order, the second ends it at once."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from jobtape.cli import log_output as logs
from jobtape.process import forks

log = logging.getLogger(__name__)

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
ECHO: Final = 0.3
"""Seconds during which a second signal is a duplicate: ``timeout`` and some service managers send a signal both to
the process and to its group."""


class SignalHandler:
    """Calls ``stop`` at the first signal, and ``end`` at the second one."""

    def __init__(self, stop: Callable[[int], None], end: Callable[[int], None]) -> None:
        self._stop = stop
        self._end = end
        self._first: float | None = None

    def handle(self, number: int, _: FrameType | None = None) -> None:
        """Handle a signal that arrives now."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._stop(number)
        elif now - self._first >= ECHO:
            self._end(number)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set ``stop`` at the first signal, on the running loop. Forked children do not inherit this."""
    forks.install()

    def on_first(number: int) -> None:
        log_stopping(number)
        stop.set()

    signals = SignalHandler(on_first, end_at_once)
    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, signals.handle, number)


def log_stopping(number: int) -> None:
    """Log that the process stops. Under a supervisor only at debug level, since the supervisor logs it."""
    level = logging.DEBUG if logs.SUPERVISED in os.environ else logging.INFO
    log.log(level, "%s: stopping; a second signal ends it at once", signal.Signals(number).name)


def end_at_once(number: int) -> None:
    """End this process with the exit code of that signal, without waiting for its threads."""
    end_now(128 + number)


def end_now(code: int) -> NoReturn:
    """End this process without waiting for its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
