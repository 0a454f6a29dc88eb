"""A server as a child process that ends with this one, through ``tether.py``. Standard library only."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.processes.locks import FolderLock

TETHER = Path(__file__).with_name("tether.py")


class Tethered:
    """One server process and its companions. Not thread-safe."""

    def __init__(
        self,
        main: Sequence[str],
        *,
        log: Path,
        companions: Sequence[Sequence[str]] = (),
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        user: str | None = None,
        stop_signal: int = signal.SIGTERM,
        grace: float = 30.0,
        lock: FolderLock | None = None,
    ) -> None:
        """Start it in the working directory ``folder``. It gets ``grace`` seconds from the stop signal to SIGKILL.

        It keeps ``lock`` until it ends, even if this process dies earlier. Raises OSError if it cannot be executed;
        what it printed until then is in ``log``.
        """
        keep = [] if lock is None else [lock.descriptor]
        spec = {
            "main": list(main),
            "companions": [list(command) for command in companions],
            "stop": int(stop_signal),
            "grace": grace,
            "user": user,
            "log": str(log),
            "keep": keep,
        }
        self._grace = grace
        with log.open("ab") as errors:
            self._tether = subprocess.Popen(
                [sys.executable, str(TETHER), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment) if environment is not None else None,
                cwd=folder,
                pass_fds=keep,
                # Ctrl-C in a terminal reaches all processes of the foreground group. This one waits for the pipe.
                start_new_session=True,
            )
        assert self._tether.stdin is not None and self._tether.stdout is not None
        self._stdin = self._tether.stdin
        with self._tether.stdout as output:
            first_line = output.readline()
        if not first_line:
            self.stop()
            raise OSError(f"{main[0]} cannot be started: see {log}")
        self.pid = int(first_line)

    @property
    def running(self) -> bool:
        """Whether the server still runs."""
        return self._tether.poll() is None

    def stop(self) -> None:
        """Ask the server to end, wait, and kill it after the grace time. Does nothing if it has ended already."""
        self._stdin.close()
        # The tether keeps the grace time itself. The rest is for a machine under load.
        self._tether.wait(self._grace + 15)

    def kill(self) -> None:
        """Send SIGKILL to the server itself."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self.stop()
