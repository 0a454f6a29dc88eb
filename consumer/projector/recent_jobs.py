"""The unfinished jobs that the active projector has committed last, in memory, so that the fold need not read them.

Most jobs get their next event within milliseconds. Reading a job back takes longer than folding its event, and with
PostgreSQL a wait for the server as well.

What is here is what the view has, as long as this projector is active. Nobody else changes jobs: other projectors get
the lease first, a rebuild that replaces the tables ends the lease, and retention removes only jobs that have ended. And
a batch is written only if the checkpoint is where the batch before has put it.

A job that is submitted, and is not here, is folded without a read as well: nearly always the view has no event of it.
If it does, because the submission was published twice or comes after the outcome, the view refuses the batch. Then it
is folded again with all jobs read, and so are the next ones, since such a tape may have many.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from jobtape.schemas.job import Job
from jobtape.view.store import FoldedBatch

MOST: Final = 2000
"""Jobs, of which the oldest are dropped."""
LONGEST: Final = 4096
"""Characters of an event's text, above which its job is dropped: payloads may be large."""


READ_FIRST: Final = 100
"""Batches in which every job is read after one was refused."""


class RecentJobs:
    """Call ``clear`` when the lease begins, and whenever it is not known whether a batch was committed."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._read_first = 0

    def clear(self) -> None:
        """Forget everything."""
        self._jobs.clear()

    def load(self, job_ids: Collection[str], read: Callable[[Collection[str]], dict[str, Job]]) -> dict[str, Job]:
        """Return the jobs that are known, by id. ``read`` returns those of the view."""
        found = {job_id: job for job_id in job_ids if (job := self._jobs.get(job_id)) is not None}
        return found | read([job_id for job_id in job_ids if job_id not in found])

    def new(self, job_ids: Collection[str]) -> frozenset[str]:
        """Return which of the submitted jobs are folded without a read in the next batch."""
        if self._read_first:
            self._read_first -= 1
            return frozenset()
        return frozenset(job_id for job_id in job_ids if job_id not in self._jobs)

    def refused(self) -> None:
        """Note that the view has one of the jobs that ``new`` returned, or that another projector is active."""
        self._read_first = READ_FIRST

    def add(self, batch: FoldedBatch) -> None:
        """Add the jobs of a batch that was committed. Between two calls of ``clear`` every batch must be added."""
        large = {entry.job_id for entry in batch.history if len(entry.event) > LONGEST}
        for job in batch.jobs:
            self._jobs.pop(job.id, None)
            if not job.final and job.id not in large:
                self._jobs[job.id] = job
        while len(self._jobs) > MOST:
            self._jobs.popitem(last=False)
