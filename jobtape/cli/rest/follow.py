"""Follows one job to its end, with a progress bar on a terminal."""

import math
import sys
import time
from types import TracebackType
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from jobtape.cli.escaping import one_line
from jobtape.cli.rest.api import Api

FINAL: Final = ("succeeded", "failed", "cancelled")
IMPATIENT: Final = 5.0
"""Seconds in the queue after which one may wonder."""
LONG: Final = 30.0
"""Seconds that the API is asked to wait for a change."""
SHORTEST, LONGEST, GROWTH = 0.1, 1.0, 1.4
"""Seconds between two questions to an API that does not wait: one that is about to end, say."""


def watch(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    """Return the job at its end; show on stderr how it gets there. Raises ApiError."""
    with _display() as display:
        display.tell(job)
        pause = SHORTEST
        doubtful_at = time.monotonic() + IMPATIENT
        while job["state"] not in FINAL:
            left = doubtful_at - time.monotonic()
            changed, waited = api.changed(job["id"], job["cursor"], max(1.0, min(left, LONG)))
            if (changed or job)["state"] == "queued" and time.monotonic() > doubtful_at:
                display.note(f"still queued: is a worker running and free? See {api.url}/health/ready")
                doubtful_at = math.inf
            if changed is not None and changed["cursor"] != job["cursor"]:
                pause = SHORTEST
            elif not waited:
                time.sleep(pause)
                pause = min(pause * GROWTH, LONGEST)
            job = changed or job
            display.tell(job)
    return job


def _display() -> "_Bar | _Lines":
    console = Console(stderr=True)
    return _Bar(console) if console.is_terminal else _Lines()


class _Bar:
    """A live bar, gone when the job is done."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            # Braille where the terminal has it.
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, said="")

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Write a line above the bar, to stay."""
        self._progress.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def tell(self, job: dict[str, Any]) -> None:
        """Show how the job is now."""
        fraction, said = _progress_of(job)
        self._progress.update(
            self._task,
            description=one_line(str(job["state"])),
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            said=said,
        )


class _Lines:
    """A line for each change, where there is no terminal to draw on."""

    def __init__(self) -> None:
        self._last = ""

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to take away."""

    def note(self, text: str) -> None:
        """Write a line of its own."""
        print(one_line(text), file=sys.stderr, flush=True)

    def tell(self, job: dict[str, Any]) -> None:
        """Write the line unless it is the last one again."""
        fraction, said = _progress_of(job)
        line = " ".join(filter(None, (job["state"], "" if fraction is None else f"{fraction:.0%}", said)))
        if line != self._last:
            print(one_line(line), file=sys.stderr, flush=True)
        self._last = line


def _progress_of(job: dict[str, Any]) -> tuple[float | None, str]:
    progress = job.get("progress")
    if not progress or job["state"] != "running":
        return None, ""
    return progress["fraction"], one_line(progress["message"] or "")
