"""``jobtape`` as others start it: a process of its own, whose lines can be waited for."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PATIENCE = 60.0
"""Seconds; much more than anything takes, for machines under load."""
COMMAND = (sys.executable, "-P", "-m", "jobtape")


class Program:
    """A running process. Its lines of stdout and stderr are kept in the order in which they came."""

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
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """What it has written until now."""
        with self._news:
            return list(self._lines)

    def line_with(self, *texts: str, times: int = 1) -> str:
        """The line, or the ``times``-th one, that contains all of ``texts``; waits for it."""
        with self._news:
            deadline = time.monotonic() + PATIENCE
            while True:
                found = [line for line in self._lines if all(text in line for text in texts)]
                if len(found) >= times:
                    return found[times - 1]
                if self._ended or not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no line {times} with {texts} in:\n" + "\n".join(self._lines))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def code(self) -> int:
        """Its exit code, negative for a signal; waits for its end."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it and whatever is left of it."""
        if self.running():
            self.send(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self._process.wait()
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._news:
                    self._lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def alive(pid: int) -> bool:
    """Whether there is such a process that still runs; one that only waits to be collected doesn't."""
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
    """Wait for something that nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}")
        time.sleep(0.02)
