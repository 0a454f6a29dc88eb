"""An event of the committed history that changed its job, as those who listen get it from the view."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobtape.schemas.job import Job
from jobtape.schemas.selection import Selection, Traits
from jobtape.view.rows import after_from_text


@dataclass(slots=True, eq=False)
class CommittedEvent:
    """``event`` is the CloudEvent as read. The job after it is decoded when somebody asks: most are delivered, or
    passed over by name, without.
    """

    cursor: int
    job_id: str
    event_id: str
    name: str
    time: datetime
    event: str
    _after: str | Job
    """The job after it, or its JSON."""

    @property
    def after(self) -> Job:
        """The job after it, without payload and result: those stand in the ``submitted`` and ``succeeded`` events."""
        after = self._after
        if isinstance(after, str):
            after = self._after = after_from_text(after)
        return after

    def wanted_by(self, selection: Selection) -> bool:
        """Whether it passes the filter."""
        return selection.fits(self.name, self.job_id, self._traits)

    def _traits(self) -> Traits:
        job = self.after
        return Traits(job.type, job.correlation_id, job.labels or {})


@dataclass(frozen=True, slots=True)
class CommittedPage:
    """A stretch of the committed history: the wanted ``rows`` of it, and the ``cursor`` to go on behind.

    ``full``: there may be more right now.
    """

    rows: Sequence[CommittedEvent]
    cursor: int
    full: bool
