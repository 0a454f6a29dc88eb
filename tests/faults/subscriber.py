"""Runs a subscriber until it is killed: ``python -m tests.faults.subscriber '<JSON>'``.

The body of its loop appends a line with the cursor and the id of the event to a file.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobtape import subscribe
from jobtape.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
Line = tuple[int, str]


class Subscriber:
    """A subscriber process, which is killed at the end of ``with Subscriber(...) as subscriber``."""

    def __init__(self, file: Path, settings: dict[str, Any], **arguments: Any) -> None:
        self._file = file
        self._spec = json.dumps({"file": str(file), "settings": settings, "arguments": arguments})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Subscriber":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process, for the first time or after ``kill``."""
        with self._file.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.subscriber", self._spec], cwd=ROOT, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process has ended."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def fault(self) -> str | None:
        """The output of the process if it ended by itself, otherwise None."""
        assert self._process is not None
        return None if self._process.poll() is None else self._file.with_suffix(".log").read_text()

    def lines(self) -> list[Line]:
        """Return the events whose body has ended, of all its processes."""
        if not self._file.exists():
            return []
        complete = self._file.read_text().rpartition("\n")[0]
        return [(int(line.split()[0]), line.split()[1]) for line in complete.splitlines()]


def without_repeats(lines: Sequence[Line]) -> list[Line]:
    """Return the lines without repeated ids."""
    first: dict[str, int] = {}
    for cursor, event_id in lines:
        first.setdefault(event_id, cursor)
    return [(cursor, event_id) for event_id, cursor in first.items()]


async def run(spec: dict[str, Any]) -> None:
    """Write a line for each event."""
    file = os.open(spec["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with subscribe(settings=Settings(**spec["settings"]), **spec["arguments"]) as received:
        async for each in received:
            os.write(file, f"{each.cursor} {each.id}\n".encode())


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
