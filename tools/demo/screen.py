"""Show jobs while they run: bars in a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from jobtape.schemas.job import FINAL

COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


class Screen:
    """One line for each title, shown until the end of ``with``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=26),
            TextColumn("{task.fields[percent]:>5}"),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> "Screen":
        self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def job(self, title: str, job: dict[str, Any]) -> None:
        """Show state and progress of a job as GET returns it."""
        progress = job["progress"] or {"fraction": 0.0, "message": None}
        done = job["state"] in FINAL
        message = progress["message"] if job["state"] == "running" else None
        self.show(title, job["state"], 1.0 if done else progress["fraction"], message)

    def show(self, title: str, state: str, fraction: float, message: str | None = None) -> None:
        """Show a line. Without a terminal, print one only for a new state or a quarter more of progress."""
        percent = "" if state in FINAL else f"{fraction:.0%}"
        if not self._console.is_terminal:
            step = (state, int(fraction * 4))
            if self._printed.get(title) != step:
                self._printed[title] = step
                line = ", ".join(filter(None, (state, percent, message)))
                self._console.print(f"  {title}: {line}", markup=False)
            return
        if title not in self._tasks:
            self._tasks[title] = self._bars.add_task(title, total=1.0, state=state, percent=percent)
        colour = COLOURS.get(state, "white")
        text = f"[{colour}]{state}[/]" + (f" [dim]{message}[/]" if message else "")
        task = self._tasks[title]
        self._bars.update(task, completed=fraction, state=text, percent=percent)
        if state in FINAL:
            self._bars.stop_task(task)
