"""The part's end of the socket between a supervisor and a part that it started.

Only the supervisor holds the other end. When the supervisor ends, for whatever reason, reading the socket returns
end-of-file, and the part stops. The part sends one byte when it is configured: if it ends after that, the settings are
not the cause.
"""

import multiprocessing
import os
import signal
import socket
import threading
from typing import Final

from jobtape.process import forks

VARIABLE: Final = "JOBTAPE_LIFELINE"
ORPHAN_TIMEOUT: Final = 5.0
"""Seconds that a part has to stop in order after its supervisor ended."""


class Lifeline:
    """Stops the part when its supervisor ends. Create it once at the start; it does nothing without a supervisor."""

    def __init__(self) -> None:
        # Removed from the environment: the descriptor is not valid in processes that this one starts.
        number = os.environ.pop(VARIABLE, None)
        self._socket = None if number is None else socket.socket(fileno=int(number))
        if self._socket is not None:
            self._socket.set_inheritable(False)
            forks.on_fork(self._socket, lambda end: forks.close_in_child(end.fileno()))
            threading.Thread(target=self._watch, args=(self._socket,), name="lifeline", daemon=True).start()

    def configured(self) -> None:
        """Notify the supervisor that the configuration is right."""
        if self._socket is not None:
            try:
                self._socket.send(b"c")
            except OSError:
                return  # the supervisor has ended, which the watching thread notices too

    @staticmethod
    def _watch(end: socket.socket) -> None:
        try:
            while end.recv(1):
                pass
        except OSError:
            pass
        _end_as_orphan()


def end_with_parent() -> None:
    """Stop this process when its parent ends, if multiprocessing started it. Otherwise do nothing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for_end_of, args=(parent,), name="parent", daemon=True).start()


def _wait_for_end_of(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    _end_as_orphan()


def _end_as_orphan() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    # What still runs is run again elsewhere. A new supervisor must not find the port taken by an orphan.
    threading.Event().wait(ORPHAN_TIMEOUT)
    os._exit(1)
