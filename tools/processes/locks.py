"""Processes and folders that outlive us: who holds a folder, is a process id still the one written down, end it.

Standard library only.
"""

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path


class FolderInUseError(Exception):
    """Another living process holds the folder."""


class FolderLock:
    """Holds a folder for this process, as long as it lives: the kernel lets go when it dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        """Raises FolderInUseError when another process holds `folder` (which must exist)."""
        path = folder / "lock"
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise FolderInUseError(f"another run (process {holder}) uses {folder}: stop it with Ctrl-C first") from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Lets go of the folder."""
        self._file.close()


def command_line(pid: int) -> str:
    """What process `pid` was started with, "" when there is none (or it isn't ours to see)."""
    proc = Path("/proc")
    if (proc / "self/cmdline").exists():
        try:
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    answer = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def end_leftover(pid: int, mark: str, grace: float = 20.0) -> bool:
    """Ends process `pid` if its command line contains `mark`, which only that server's does; true if it was there.

    Process ids are used again by others, so a number from a file proves nothing by itself.
    """
    if mark not in command_line(pid):
        return False
    deadline = time.monotonic() + grace
    try:
        os.kill(pid, signal.SIGTERM)
        while mark in command_line(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    except ProcessLookupError:
        pass
    return True
