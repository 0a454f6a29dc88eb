"""SIGTERM and SIGINT: the first asks to stop in order, the second ends at once."""

import asyncio
import logging
import os
import signal
import sys
from typing import Final

log = logging.getLogger(__name__)

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals(stop: asyncio.Event) -> None:
    """From now on the first signal sets ``stop`` of the running loop."""

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            end_at_once(number)
        log.info("%s: stopping; a second signal ends it at once", number.name)
        stop.set()

    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def end_at_once(number: int) -> None:
    """End this process without waiting for any of its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + number)
