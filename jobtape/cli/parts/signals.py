"""Handles SIGTERM and SIGINT: the first stops the process in order, the second ends it at once."""

import asyncio
import logging
import os
import signal
import sys
import time
from enum import Enum, auto
from typing import Final, NoReturn

from jobtape import forks
from jobtape.cli import log_output as logs

log = logging.getLogger(__name__)

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
ECHO: Final = 0.3
"""Seconds during which a second signal is a duplicate: ``timeout`` and some service managers send a signal both to
the process and to its group."""


class Signal(Enum):
    """The meaning of a signal."""

    FIRST = auto()
    ECHO = auto()
    SECOND = auto()


class Signals:
    """Distinguishes the first signal, its duplicate and the second one."""

    def __init__(self) -> None:
        self._first: float | None = None

    def take(self) -> Signal:
        """Return the meaning of a signal that arrives now."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return Signal.FIRST
        return Signal.ECHO if now - self._first < ECHO else Signal.SECOND


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set ``stop`` at the first signal, on the running loop. Forked children do not inherit this."""
    forks.install()
    signals = Signals()

    def on_signal(number: signal.Signals) -> None:
        match signals.take():
            case Signal.FIRST:
                log_stopping(number)
                stop.set()
            case Signal.SECOND:
                end_at_once(number)

    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


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
