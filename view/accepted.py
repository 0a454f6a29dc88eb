"""An event of the committed history that changed its job, as those who listen get it from the view."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobtape.schemas.job import Job
from jobtape.schemas.selection import Selection
from jobtape.view.rows import after_from_text


@dataclass(slots=True, eq=False)
class Accepted:
    """``event`` is the CloudEvent as read. The job after it is decoded when somebody asks: most events are told, or
    passed over by name, without.
    """

    cursor: int
    job_id: str
    event_id: str
    name: str
    time: datetime
    event: str
    stored: "str | Job"

    @property
    def after(self) -> Job:
        """The job after it, without payload and result: those stand in the ``submitted`` and ``succeeded`` events."""
        if isinstance(self.stored, str):
            self.stored = after_from_text(self.stored)
        return self.stored

    def wanted_by(self, selection: Selection) -> bool:
        """Whether it passes the filter."""
        if not selection.wants_event(self.name) or selection.job not in (None, self.job_id):
            return False
        return not selection.looks_into_job or selection.wants(self.name, self.after)


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of the committed history: the wanted ``rows`` of it, and the ``cursor`` to go on behind.

    ``full``: there may be more right now.
    """

    rows: Sequence[Accepted]
    cursor: int
    full: bool
