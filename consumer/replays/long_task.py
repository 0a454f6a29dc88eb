"""What long tasks have in common: they report how far they are, work for a slice of time, and go on where they were."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobtape.schemas.errors import JobtapeError

Report = Callable[[float, str], None]
"""Takes a fraction from 0 to 1 and a few words."""


class Interrupted(JobtapeError):
    """The slice is over; called again, the task goes on where it is."""


class TakenOver(JobtapeError):
    """Another process works on the same task, and is ahead; taken up later, it is done, or goes on."""


@dataclass(slots=True)
class TaskSlice:
    """``until``: the time of ``time.monotonic`` at which it is over. ``what`` is counted, such as "events", and makes
    ``share`` of the whole task. ``spare``: seconds behind ``until`` in which what was begun before may end.
    """

    report: Report
    until: float
    what: str
    share: float = 1.0
    spare: float = 0.0
    done: int = 0
    _began: float = field(default_factory=time.monotonic)

    def tell(self, more: int, left: int, before: int = 0) -> None:
        """``more`` are done, after ``before`` that were done in other slices; about ``left`` are not."""
        self.done += more
        rate = self.done / max(1e-6, time.monotonic() - self._began)
        total = before + self.done
        words = f"{total} {self.what}, {rate:.0f}/s, about {left / max(rate, 1e-6):.0f} s left"
        self.report(self.share * total / max(1, total + left), words)

    def check(self) -> None:
        """Raises Interrupted when it is over."""
        if time.monotonic() > self.until:
            raise Interrupted("it goes on in its next attempt")

    def room(self) -> float:
        """Seconds that something which begins now may take."""
        return self.until + self.spare - time.monotonic()
