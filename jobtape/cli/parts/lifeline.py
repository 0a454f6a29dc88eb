"""The socket between a supervisor and a part that it started, as the part sees it.

One end is the supervisor's, and nobody else has it: when the supervisor is gone, however it died, reading the other
end shows it. The part writes one byte to it: that it is configured, so a later end is no fault of the settings.
"""

import multiprocessing
import os
import signal
import socket
import threading
from typing import Final

from jobtape import forks

VARIABLE: Final = "JOBTAPE_LIFELINE"
PATIENCE: Final = 5.0
"""Seconds that an orphan has to end in order."""


class Lifeline:
    """Made once, at the start of a part; without a supervisor it does nothing."""

    def __init__(self) -> None:
        # Taken out of the environment: the number means nothing in processes that this one starts.
        number = os.environ.pop(VARIABLE, None)
        self._socket = None if number is None else socket.socket(fileno=int(number))
        if self._socket is not None:
            self._socket.set_inheritable(False)
            forks.in_child(self._socket, lambda end: forks.close_here(end.fileno()))
            threading.Thread(target=self._watch, args=(self._socket,), name="lifeline", daemon=True).start()

    def configured(self) -> None:
        """Report to the supervisor that nothing is wrong with the configuration."""
        if self._socket is not None:
            try:
                self._socket.send(b"c")
            except OSError:
                return  # it is gone, which the watching thread sees too

    @staticmethod
    def _watch(end: socket.socket) -> None:
        try:
            while end.recv(1):
                pass
        except OSError:
            pass
        _end_as_orphan()


def end_with_parent() -> None:
    """In a process that multiprocessing started: end when its parent is gone. Elsewhere nothing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for_end_of, args=(parent,), name="parent", daemon=True).start()


def _wait_for_end_of(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    _end_as_orphan()


def _end_as_orphan() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    # Whatever still runs then runs again elsewhere; a new supervisor must not find the port taken by an orphan.
    threading.Event().wait(PATIENCE)
    os._exit(1)
