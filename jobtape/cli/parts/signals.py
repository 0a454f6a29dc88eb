"""SIGTERM and SIGINT: the first asks to stop in order, the second ends at once."""

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
"""Seconds. ``timeout`` and some service managers send the one signal twice, to the process and to its group."""


class Signal(Enum):
    """What a signal means that has just come."""

    FIRST = auto()
    ECHO = auto()
    SECOND = auto()


class Signals:
    """Distinguishes the first signal from the second."""

    def __init__(self) -> None:
        self._first: float | None = None

    def take(self) -> Signal:
        """What the signal means that has come now."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return Signal.FIRST
        return Signal.ECHO if now - self._first < ECHO else Signal.SECOND


def stop_on_signals(stop: asyncio.Event) -> None:
    """From now on the first signal sets ``stop`` of the running loop. Children that are forked are not concerned."""
    forks.install()
    signals = Signals()

    def on_signal(number: signal.Signals) -> None:
        match signals.take():
            case Signal.FIRST:
                tell(number)
                stop.set()
            case Signal.SECOND:
                end_at_once(number)

    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def tell(number: int) -> None:
    """Log that we stop; under a supervisor it is the supervisor that says so."""
    level = logging.DEBUG if logs.SUPERVISED in os.environ else logging.INFO
    log.log(level, "%s: stopping; a second signal ends it at once", signal.Signals(number).name)


def end_at_once(number: int) -> None:
    """End this process, as that signal would, without waiting for any of its threads."""
    end_now(128 + number)


def end_now(code: int) -> NoReturn:
    """End this process without waiting for any of its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
