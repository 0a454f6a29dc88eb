"""The parent's side of tether.py: a server as a child that ends with us. Standard library only."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TETHER = Path(__file__).with_name("tether.py")


class Tethered:
    """One server process and its companions. Not thread-safe; one owner."""

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
    ) -> None:
        """Starts it. `folder` becomes its working directory, `grace` are the seconds between asking and killing.

        Raises OSError when it can't be executed; what it printed until then is in `log`.
        """
        spec = {
            "main": list(main),
            "companions": [list(command) for command in companions],
            "stop": int(stop_signal),
            "grace": grace,
            "user": user,
            "log": str(log),
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
                # Ctrl-C in a terminal reaches every process of the foreground group; this one waits for the pipe.
                start_new_session=True,
            )
        assert self._tether.stdout is not None
        first_line = self._tether.stdout.readline()
        if not first_line:
            self._tether.wait()
            self._close()
            raise OSError(f"{main[0]} can't be started: see {log}")
        self.pid: int = json.loads(first_line)[-1]

    @property
    def running(self) -> bool:
        """Whether the server still runs (the tether ends right after it)."""
        return self._tether.poll() is None

    def stop(self) -> None:
        """Asks the server to end, waits, kills it after the grace time. Does nothing when it has ended already."""
        self._close()
        # The tether keeps to the grace time by itself; the rest is for a machine under load.
        self._tether.wait(self._grace + 15)

    def kill(self) -> None:
        """SIGKILL to the server itself, as a crash would end it."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def _close(self) -> None:
        for pipe in (self._tether.stdin, self._tether.stdout):
            if pipe is not None:
                pipe.close()
