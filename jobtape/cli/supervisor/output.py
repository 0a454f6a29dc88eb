"""Writes the supervisor's output: each line with the name of its part, in colour on a terminal."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from jobtape.cli.escaping import lines

OWN: Final = "jobtape"
_COLOURS: Final = ("\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m")
_RESET: Final = "\x1b[0m"


class Output:
    """The output of the supervisor. ``names``: all parts, for alignment and colours."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = (*names, OWN)
        self._width = max(len(name) for name in self._names)
        self._closed = False

    def line(self, name: str, text: str, *, error: bool) -> None:
        """Write a line of the part ``name`` to stdout, or to stderr when ``error`` is set."""
        stream = sys.stderr if error else sys.stdout
        self._write(stream, f"{self._prefix(name, stream)} {lines(text)}\n")

    def note(self, text: str) -> None:
        """Write a line of the supervisor itself to stderr."""
        self.line(OWN, text, error=True)

    def _prefix(self, name: str, stream: TextIO) -> str:
        prefix = f"{name:<{self._width}} |"
        if not stream.isatty() or "NO_COLOR" in os.environ:
            return prefix
        return f"{_COLOURS[self._names.index(name) % len(_COLOURS)]}{prefix}{_RESET}"

    def _write(self, stream: TextIO, text: str) -> None:
        if self._closed:
            return
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            # The reader has closed the output (`jobtape up | head`): stop in order.
            self._closed = True
            os.kill(os.getpid(), signal.SIGTERM)
