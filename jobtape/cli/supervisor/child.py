"""The child processes of the supervisor and their output."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TextIO

from jobtape.cli.escaping import lines
from jobtape.cli.log_output import SUPERVISED, json_line
from jobtape.cli.parts.lifeline import VARIABLE

OWN: Final = "jobtape"
_COLOURS: Final = ("\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m")
_RESET: Final = "\x1b[0m"
LONGEST_LINE: Final = 65536
DRAIN: Final = 1.0
"""Seconds to wait for the rest of the output: a process that the part started may hold its pipes open."""


class Output:
    """The output of the supervisor. ``names``: all parts, for alignment and colours. ``as_json``: write each line as
    JSON, also what handlers print.
    """

    def __init__(self, names: Sequence[str], *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._names = (*names, OWN)
        self._width = max(len(name) for name in self._names)
        self._closed = False

    def line(self, name: str, text: str, *, error: bool) -> None:
        """Write a line of the part ``name`` to stdout, or to stderr when ``error`` is set."""
        stream = sys.stderr if error else sys.stdout
        if self._as_json:
            self._write(stream, f"{json_line(name, text, error=error and name != OWN)}\n")
            return
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


class Child:
    """A child process; create it with ``start``.

    The process writes to pipes and holds one end of a lifeline. It has a process group of its own, so that a Ctrl-C on
    the terminal reaches only the supervisor. ``on_configured`` is called when the process reports that it is
    configured.
    """

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        lifeline: socket.socket,
        output: Output,
        on_configured: Callable[[], None],
    ) -> None:
        self.name = name
        self.configured = False
        self._process = process
        self._lifeline = lifeline
        self._output = output
        self._on_configured = on_configured
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, error=False)),
            asyncio.create_task(self._read(process.stderr, error=True)),
        ]
        self._listener = asyncio.create_task(self._listen())
        self._end = asyncio.create_task(self._wait())

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        output: Output,
        on_configured: Callable[[], None],
        variables: Mapping[str, str] | None = None,
    ) -> "Child":
        """Start ``command`` as the part ``name``, with our environment and these ``variables``."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                process_group=0,
                env={**os.environ, **(variables or {}), VARIABLE: str(theirs.fileno()), SUPERVISED: "1"},
            )
        ours.setblocking(False)
        return cls(name, process, ours, output, on_configured)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def ended(self) -> int:
        """Wait until the process has ended and its output was read. Returns the exit code, negative for a signal."""
        return await asyncio.shield(self._end)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _wait(self) -> int:
        code = await self._process.wait()
        _, late = await asyncio.wait([*self._readers, self._listener], timeout=DRAIN)
        for task in late:
            task.cancel()
        self._lifeline.close()
        return code

    async def _listen(self) -> None:
        with contextlib.suppress(OSError):
            if await asyncio.get_running_loop().sock_recv(self._lifeline, 1):
                self.configured = True
                self._on_configured()

    async def _read(self, stream: asyncio.StreamReader, *, error: bool) -> None:
        rest = b""
        while chunk := await stream.read(LONGEST_LINE):
            *complete, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE:
                complete, rest = [*complete, rest], b""
            for line in complete:
                self._line(line, error)
        if rest:
            self._line(rest, error)

    def _line(self, raw: bytes, error: bool) -> None:
        self._output.line(self.name, raw.decode(errors="replace").rstrip("\r"), error=error)
