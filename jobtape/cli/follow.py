"""Follows one job until it ends, with a progress bar on a terminal."""

import math
import sys
import time
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from jobtape import SyncClient
from jobtape.cli.api import TIMEOUT, job_path
from jobtape.cli.escaping import one_line
from jobtape.schemas.job import FINAL

QUEUED_HINT_AFTER: Final = 5.0
"""Seconds in the queue after which a hint about workers is printed."""
LONG_POLL: Final = 30.0
"""Seconds that the API is asked to wait for a change."""
SHORTEST, LONGEST, GROWTH = 0.1, 1.0, 1.4
"""Seconds between two polls of an API that does not wait, for example because it is stopping."""


def follow_job(api: SyncClient, job: dict[str, Any]) -> dict[str, Any]:
    """Follow the job until it ends, show its progress on stderr, and return it. Raises ApiError."""
    display = _Display()
    with display.progress:
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


class _Display:
    """Shows a job: as a progress bar that disappears at the end, or, without a terminal, as a line for each change."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._is_bar = console.is_terminal
        self._last = ""
        self.progress = Progress(
            # Braille where the terminal has it.
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", markup=False),
            console=console,
            transient=True,
            disable=not self._is_bar,
        )
        self._task = self.progress.add_task("", total=None, message="")

    def note(self, text: str) -> None:
        """Write a line."""
        if self._is_bar:  # above the bar
            self.progress.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)
        else:
            print(one_line(text), file=sys.stderr, flush=True)

    def show(self, job: dict[str, Any]) -> None:
        """Show the job's state and progress."""
        fraction, message = _progress_of(job)
        state = one_line(str(job["state"]))
        if self._is_bar:
            total, done = (None, 0.0) if fraction is None else (1.0, fraction)
            self.progress.update(self._task, description=state, total=total, completed=done, message=message)
            return
        line = " ".join(filter(None, (state, "" if fraction is None else f"{fraction:.0%}", message)))
        if line != self._last:
            self.note(line)
        self._last = line


def _progress_of(job: dict[str, Any]) -> tuple[float | None, str]:
    progress = job.get("progress")
    if not progress or job["state"] != "running":
        return None, ""
    return progress["fraction"], one_line(progress["message"] or "")
