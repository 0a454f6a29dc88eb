"""What the supervisor writes: each line behind the name of its part, in that part's colour on a terminal."""

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
    """``names``: the parts whose lines there will be."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = (*names, OWN)
        self._width = max(len(name) for name in self._names)
        self._closed = False

    def line(self, name: str, text: str, *, error: bool) -> None:
        """Write a line of the part ``name`` to stdout or, an error, to stderr."""
        stream = sys.stderr if error else sys.stdout
        self._write(stream, f"{self._prefix(name, stream)} {lines(text)}\n")

    def say(self, text: str) -> None:
        """Write a line of our own to stderr."""
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
            # Nobody reads any more (`jobtape up | head`): stop in order, as any program would end.
            self._closed = True
            os.kill(os.getpid(), signal.SIGTERM)
