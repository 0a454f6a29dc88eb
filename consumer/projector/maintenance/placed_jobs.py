"""The jobs whose work is on one queue, and how far the queue has got. Pure: ``LostMessages`` passes changes to it."""

from collections.abc import Iterable, Mapping
from typing import Final

MOST: Final = 5000
"""Jobs of one queue that are tracked."""
REFILL_BELOW: Final = 1000
"""Tracked jobs below which further ones are read."""
LAG: Final = 1000
"""How many placements before a job that was read its queue has passed when its work comes off it."""


class PlacedJobs:
    """The jobs of one queue whose latest event placed their work, at most ``MOST``, those that were placed first.

    ``complete``: whether there are no others. All moments are cursors.
    """

    def __init__(self) -> None:
        self.complete = True
        self._passed = -1
        """The moment up to which all work that was placed is known to have come off the queue, or to be lost."""
        self._jobs: dict[str, tuple[int, int]] = {}
        """By job id: what the queue has passed when its work comes off, and since when it may be lost; sorted by the
        latter.
        """
        self._changed: set[str] | None = None
        """While jobs are being read: those that have changed meanwhile."""

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def place(self, job_id: str, cursor: int, *, behind: int | None = None) -> None:
        """Add a job whose work was placed. ``behind``: what was placed before this moment came to the queue before it;
        by default ``cursor``.
        """
        self._note(job_id)
        self._jobs.pop(job_id, None)
        if len(self._jobs) < MOST and (self.complete or self._changed is not None):
            self._jobs[job_id] = (cursor if behind is None else behind, cursor)
        else:
            self.complete = False

    def remove(self, job_id: str, *, came_off: bool = False, behind: int = -1) -> None:
        """Remove a job. ``came_off``: its work has come off the queue. ``behind``: see ``place``, for a job that is not
        tracked.
        """
        self._note(job_id)
        known = self._jobs.pop(job_id, None)
        if came_off:
            self._passed = max(self._passed, behind if known is None else known[0])

    def name(self, job_id: str, cursor: int) -> None:
        """Note that a worker has the work of the job at ``cursor``, if the job is tracked."""
        if (known := self._jobs.pop(job_id, None)) is not None:
            self._jobs[job_id] = (known[0], max(known[1], cursor))

    def doubt_from(self, cursor: int) -> None:
        """Note that the work of any job may have been with a worker up to ``cursor``."""
        self._jobs = {job_id: (behind, max(since, cursor)) for job_id, (behind, since) in self._jobs.items()}

    def oldest(self) -> int | None:
        """Return the lowest of the moments since which the jobs may be lost; None when no job is tracked."""
        first = next(iter(self._jobs.values()), None)
        return None if first is None else first[1]

    def not_on_queue(self, up_to: int, *, empty: bool) -> list[str]:
        """Return the jobs of up to ``up_to`` whose work is not on the queue: what came to it later has come off, or it
        is ``empty``.
        """
        found: list[str] = []
        for job_id, (_, since) in self._jobs.items():
            if since > up_to or not (empty or since < self._passed):
                break
            found.append(job_id)
        return found

    def begin_to_read(self) -> None:
        """Begin to note what changes while jobs are read. ``add`` ends it."""
        self._changed = set()

    def add(self, read: Mapping[str, int], *, since: int, complete: bool) -> None:
        """Add jobs that were read, with the cursors at which they were placed. None of them may be lost before
        ``since``.
        """
        changed, self._changed = self._changed or set(), None
        cursors = sorted(read.values())
        behind = dict(zip(cursors, [-1] * LAG + cursors, strict=False))
        found = {
            job_id: (behind[placed], max(placed, since)) for job_id, placed in read.items() if job_id not in changed
        }
        self._jobs = dict(_sorted({**found, **self._jobs}.items()))
        self.complete = complete

    def _note(self, job_id: str) -> None:
        if self._changed is not None:
            self._changed.add(job_id)


def _sorted(jobs: Iterable[tuple[str, tuple[int, int]]]) -> list[tuple[str, tuple[int, int]]]:
    return sorted(jobs, key=lambda each: each[1][1])
