"""Let one process at a time use a folder. Standard library only."""

import fcntl
import os
import time
from pathlib import Path

# Seconds that a server whose parent died gets to stop, and some more.
WAIT_LIMIT = 40.0


class FolderInUseError(Exception):
    """Another process uses the folder."""


class FolderLock:
    """Reserve a folder until ``release``, or until this process ends, even by SIGKILL.

    A child that inherits ``descriptor`` keeps the folder reserved until it has ended too.
    """

    def __init__(self, folder: Path) -> None:
        """Lock the existing ``folder``. Raises FolderInUseError.

        If the process that locked it has died, wait for its children, some seconds at most.
        """
        self._own = (folder / "lock").open("a+")
        self._inherited = (folder / "children.lock").open("a")
        if not _lock(self._own.fileno(), limit=0):
            self._own.seek(0)
            holder = self._own.read().strip() or "unknown"
            self.release()
            raise FolderInUseError(f"another run (process {holder}) uses {folder}: stop it with Ctrl-C first")
        if not _lock(self.descriptor, WAIT_LIMIT):
            self.release()
            raise FolderInUseError(f"a server of an earlier run still uses {folder}: end it first")
        self._own.truncate(0)
        self._own.write(str(os.getpid()))
        self._own.flush()

    @property
    def descriptor(self) -> int:
        """The file descriptor to inherit."""
        return self._inherited.fileno()

    def release(self) -> None:
        """Let others use the folder."""
        self._inherited.close()
        self._own.close()


def _lock(descriptor: int, limit: float) -> bool:
    deadline = time.monotonic() + limit
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.05)
