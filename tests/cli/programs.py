"""Start ``jobtape`` as a process, and wait for lines of its output."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LIMIT = 60.0
"""Seconds. Much more than needed, for machines under load."""
COMMAND = (sys.executable, "-P", "-m", "jobtape")


class Program:
    """A running process. The lines of its stdout and stderr are kept in the order in which they were written."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """The lines that the process has written so far."""
        with self._changed:
            return list(self._lines)

    def line_with(self, *texts: str, times: int = 1) -> str:
        """Wait for the ``times``-th line that contains all of ``texts``, and return it. Fails when the process ends."""
        with self._changed:
            deadline = time.monotonic() + LIMIT
            while True:
                found = [line for line in self._lines if all(text in line for text in texts)]
                if len(found) >= times:
                    return found[times - 1]
                if self._ended or not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no line {times} with {texts} in:\n" + "\n".join(self._lines))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def code(self) -> int:
        """Wait until the process ends, and return its exit code, or the negative number of the signal that ended it."""
        code = self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        return code

    def running(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process: send SIGTERM, and SIGKILL when it does not end in time."""
        if self.running():
            self.send(signal.SIGTERM)
            try:
                self._process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self._process.wait()
        self._reader.join(LIMIT)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def alive(pid: int) -> bool:
    """Return whether the process runs. A zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    try:
        return not Path("/proc/self").exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition`` returns a true value. Fails with ``what`` after ``LIMIT`` seconds."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {LIMIT:g} s: {what}")
        time.sleep(0.02)
