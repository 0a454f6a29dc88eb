"""Long tasks: they report their progress, work for a slice of time, and continue in the next slice."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobtape.schemas.errors import JobtapeError

Report = Callable[[float, str], None]
"""Takes a fraction from 0 to 1 and a short text."""


class Interrupted(JobtapeError):
    """The slice is over. The task continues when it is called again."""


class TakenOver(JobtapeError):
    """Another process works on the same task. Call it again: it has ended, or it continues."""


@dataclass(slots=True)
class TaskSlice:
    """A slice of time for a task.

    ``until``: the end, by ``time.monotonic``. ``unit``: what is counted, such as "events". ``share``: which part of the
    whole task this is, from 0 to 1. ``spare``: seconds after ``until`` in which an item that has started may end.
    """

    report: Report
    until: float
    unit: str
    share: float = 1.0
    spare: float = 0.0
    done: int = 0
    _started: float = field(default_factory=time.monotonic)

    def add(self, count: int, left: int, before: int = 0) -> None:
        """Report that ``count`` more are done, after ``before`` in earlier slices, and that about ``left`` are left."""
        self.done += count
        rate = self.done / max(1e-6, time.monotonic() - self._started)
        total = before + self.done
        text = f"{total} {self.unit}, {rate:.0f}/s, about {left / max(rate, 1e-6):.0f} s left"
        self.report(self.share * total / max(1, total + left), text)

    def check(self) -> None:
        """Raise Interrupted when the slice is over."""
        if time.monotonic() > self.until:
            raise Interrupted("it continues in its next attempt")

    def seconds_left(self) -> float:
        """Return how many seconds an item that starts now may take."""
        return self.until + self.spare - time.monotonic()
