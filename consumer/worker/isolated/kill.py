"""Ends a process with everything that it started."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_ROUNDS: Final = 5


def kill_all(pid: int) -> None:
    """SIGKILL for the process ``pid``, which leads a process group, for that group, and (Linux) for its descendants,
    also those that left the group. They are stopped first: what runs could start others meanwhile.
    """
    seen = {pid}
    _signal(pid, signal.SIGSTOP)
    for _ in range(_ROUNDS):
        new = set(_descendants(pid)) - seen
        if not new:
            break
        for each in new:
            _signal(each, signal.SIGSTOP)
        seen |= new
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for each in seen:
        _signal(each, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _descendants(pid: int) -> Iterator[int]:
    with suppress(OSError):  # it has ended, or this system has no such files
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                for child in map(int, children.read_text().split()):
                    yield child
                    yield from _descendants(child)
