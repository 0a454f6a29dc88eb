"""Starts parts as processes, kills and freezes them."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobtape.schemas.topology import Topology

ROOT = Path(__file__).resolve().parents[2]


class Parts:
    """``with Parts(log, topology, url=…, database=…) as parts``: none of them outlives it."""

    def __init__(self, log: Path, topology: Topology, **common: Any) -> None:
        place = {"namespace": topology.namespace, "delay_levels": topology.delay_levels}
        self._common = {"lease": 1.0, "heartbeat": 10} | place | common
        self._log = log
        self._started = 0
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def start(self, part: str, place: str) -> None:
        """A ``worker`` or ``projector`` in a place, which is free."""
        self._started += 1
        spec = self._common | {"part": part, "name": f"{place}-{self._started}"}
        with self._log.open("ab") as log:
            self._running[place] = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.part", json.dumps(spec)], cwd=ROOT, stdout=log, stderr=log
            )

    def kill(self, place: str) -> None:
        """SIGKILL, and wait until it is gone."""
        process = self._running.pop(place)
        process.kill()
        process.wait()

    def freeze(self, place: str) -> None:
        """SIGSTOP."""
        self._running[place].send_signal(signal.SIGSTOP)

    def thaw(self, place: str) -> None:
        """SIGCONT."""
        self._running[place].send_signal(signal.SIGCONT)

    def ended(self) -> list[str]:
        """Who ended without being told to."""
        return [place for place, process in self._running.items() if process.poll() is not None]
