"""Starts workers and projectors as processes, kills and freezes them."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobtape.schemas.topology import Topology

ROOT = Path(__file__).resolve().parents[2]


class Parts:
    """Processes, which are killed at the end of ``with Parts(...) as parts``."""

    def __init__(self, log: Path, topology: Topology, **common: Any) -> None:
        self._common = {"lease": 1.0, "heartbeat": 10} | {"namespace": topology.namespace} | common
        self._log = log
        self._started = 0
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def start(self, part: str, name: str) -> None:
        """Start a ``worker`` or ``projector`` under a name that is not in use."""
        self._started += 1
        spec = self._common | {"part": part, "name": f"{name}-{self._started}"}
        with self._log.open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.part", json.dumps(spec)], cwd=ROOT, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """Send SIGKILL, and wait until the process has ended."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def freeze(self, name: str) -> None:
        """Send SIGSTOP."""
        self._running[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Send SIGCONT."""
        self._running[name].send_signal(signal.SIGCONT)

    def ended(self) -> list[str]:
        """Return the names of processes that ended by themselves."""
        return [name for name, process in self._running.items() if process.poll() is not None]
