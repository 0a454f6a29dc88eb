"""Follows one job until it ends, with a progress bar on a terminal."""

import math
import sys
import time
from types import TracebackType
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from jobtape import SyncClient
from jobtape.cli.escaping import one_line
from jobtape.cli.rest.api import TIMEOUT, job_path
from jobtape.schemas.job import FINAL

QUEUED_HINT_AFTER: Final = 5.0
"""Seconds in the queue after which a hint about workers is printed."""
LONG_POLL: Final = 30.0
"""Seconds that the API is asked to wait for a change."""
SHORTEST, LONGEST, GROWTH = 0.1, 1.0, 1.4
"""Seconds between two polls of an API that does not wait, for example because it is stopping."""


def follow_job(api: SyncClient, job: dict[str, Any]) -> dict[str, Any]:
    """Follow the job until it ends, show its progress on stderr, and return it. Raises ApiError."""
    with _display() as display:
        display.show(job)
        pause = SHORTEST
        hint_at = time.monotonic() + QUEUED_HINT_AFTER
        while job["state"] not in FINAL:
            left = hint_at - time.monotonic()
            changed, waited = _wait_for_change(api, job, math.ceil(max(1.0, min(left, LONG_POLL))))
            if (changed or job)["state"] == "queued" and time.monotonic() > hint_at:
                display.note(f"still queued: is a worker running and free? See {api.url}/health/ready")
                hint_at = math.inf
            if changed and changed["cursor"] != job["cursor"]:
                pause = SHORTEST
            elif not waited:
                time.sleep(pause)
                pause = min(pause * GROWTH, LONGEST)
            job = changed or job
            display.show(job)
    return job


def _wait_for_change(api: SyncClient, job: dict[str, Any], seconds: int) -> tuple[dict[str, Any], bool]:
    """Wait up to ``seconds`` until the job has changed since its ``cursor``.

    Returns the job, empty when nothing changed, and whether the API waited before it answered.
    """
    cursor = job["cursor"]
    headers = {} if cursor is None else {"If-None-Match": f'"{cursor}"', "Prefer": f"wait={seconds}"}
    changed, received = api.request("GET", job_path(job["id"]), headers=headers, timeout=seconds + TIMEOUT)
    return changed, "preference-applied" in received


def _display() -> "_Bar | _Lines":
    console = Console(stderr=True)
    return _Bar(console) if console.is_terminal else _Lines()


class _Bar:
    """A progress bar that disappears when the job has ended."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            # Braille where the terminal has it.
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, message="")

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def show(self, job: dict[str, Any]) -> None:
        """Show the job's state and progress."""
        fraction, message = _progress_of(job)
        self._progress.update(
            self._task,
            description=one_line(str(job["state"])),
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            message=message,
        )


class _Lines:
    """Prints a line for each change, when stderr is not a terminal."""

    def __init__(self) -> None:
        self._last = ""

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def note(self, text: str) -> None:
        """Write a line."""
        print(one_line(text), file=sys.stderr, flush=True)

    def show(self, job: dict[str, Any]) -> None:
        """Write the job's state and progress, unless it is the same as before."""
        fraction, message = _progress_of(job)
        line = " ".join(filter(None, (job["state"], "" if fraction is None else f"{fraction:.0%}", message)))
        if line != self._last:
            print(one_line(line), file=sys.stderr, flush=True)
        self._last = line


def _progress_of(job: dict[str, Any]) -> tuple[float | None, str]:
    progress = job.get("progress")
    if not progress or job["state"] != "running":
        return None, ""
    return progress["fraction"], one_line(progress["message"] or "")
