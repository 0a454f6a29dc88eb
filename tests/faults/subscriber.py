"""A subscriber as a process of its own: ``python -m tests.faults.subscriber '<JSON>'``, until it is killed.

Its body is one line appended to a file: the cursor and the event's id.
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
    """``with Subscriber(file, settings, name=…, since=…) as subscriber``; it does not outlive that."""

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
        """Once more."""
        with self._file.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.subscriber", self._spec], cwd=ROOT, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def trouble(self) -> str | None:
        """What it said when it ended by itself."""
        assert self._process is not None
        return None if self._process.poll() is None else self._file.with_suffix(".log").read_text()

    def lines(self) -> list[Line]:
        """Everything whose body has ended, by all of its lives."""
        if not self._file.exists():
            return []
        whole = self._file.read_text().rpartition("\n")[0]
        return [(int(line.split()[0]), line.split()[1]) for line in whole.splitlines()]


def without_repeats(lines: Sequence[Line]) -> list[Line]:
    """As a reader has it that drops what it knows by its id."""
    first: dict[str, int] = {}
    for cursor, event_id in lines:
        first.setdefault(event_id, cursor)
    return [(cursor, event_id) for event_id, cursor in first.items()]


async def run(spec: dict[str, Any]) -> None:
    """Hear and write."""
    file = os.open(spec["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with subscribe(settings=Settings(**spec["settings"]), **spec["arguments"]) as received:
        async for each in received:
            os.write(file, f"{each.cursor} {each.id}\n".encode())


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
