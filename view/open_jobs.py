"""Jobs that are not final: their queues, those whose work waits or was lost, and work that the broker dropped.

The reads use the partial indexes ``jobs_open`` and ``jobs_waiting``. So a million closed jobs cost nothing. That of
dropped work has no index and reads the newest events.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, cast, get_args

from sqlalchemy import func, select, text

from jobtape.schemas.events import Deferred, Dropped, decode
from jobtape.schemas.job import Job, JobState
from jobtape.view import jobs, tables
from jobtape.view.rows import job_from_row
from jobtape.view.sql.database import StorePart
from jobtape.view.values import WaitingJob

RECENT: Final = 2000
"""Events that are read to find recent drops."""

_OPEN = text(tables.OPEN)
_WAITING = text(tables.WAITING)
_NOT_WAITING = text(f"NOT ({tables.WAITING})")
_job = tables.jobs.c
_entry = tables.history.c


class OpenJobs(StorePart):
    """Reads of jobs that are not final."""

    def queues(self) -> list[str]:
        """Return the queues of open jobs, sorted. Reads the index once for each queue, not for each job."""
        found: list[str] = []
        following = select(func.min(_job.queue)).where(_OPEN)
        with self.database.reading() as connection:
            last = connection.execute(following).scalar()
            while last is not None:
                found.append(last)
                last = connection.execute(following.where(_job.queue > last)).scalar()
        return found

    def overdue(self, queue: str, due: datetime, cursor: int, after: str, limit: int) -> list[Job]:
        """Return open jobs of ``queue`` that were due at ``due`` and have no event after ``cursor``.

        Sorted by id, from the first id after ``after``. Left out are jobs whose work is to be placed, and imported
        jobs, whose work was never on a queue of this broker.
        """
        statement = (
            select(tables.jobs)
            .where(_OPEN, _job.queue == queue, _job.run_at <= due, _job.cursor <= cursor, _job.id > after)
            .where(~_job.imported, _NOT_WAITING)
            .order_by(_job.id)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [job_from_row(row) for row in connection.execute(statement).all()]

    def waiting(
        self, limit: int, without: Collection[str] = (), without_dropped: Collection[str] = ()
    ) -> list[WaitingJob]:
        """Return jobs whose work is to be placed, also those that are not due yet, the earliest first.

        ``without``: queues to leave out. ``without_dropped``: queues whose jobs are left out if the broker dropped
        their work.
        """
        statement = select(_job.id, _job.queue, _job.run_at).where(_WAITING).order_by(_job.run_at, _job.id)
        if without:
            statement = statement.where(_job.queue.not_in(without))
        if without_dropped:
            dropped = (_job.state == JobState.SCHEDULED.value) & func.coalesce(_job.reason, "").in_(get_args(Dropped))
            statement = statement.where(~(_job.queue.in_(without_dropped) & dropped))
        with self.database.reading() as connection:
            return [WaitingJob(*row) for row in connection.execute(statement.limit(limit)).all()]

    def earliest_waiting(self) -> datetime | None:
        """Return when the first job is due whose work is not placed yet; None when there is none."""
        with self.database.reading() as connection:
            return connection.execute(select(_job.run_at).where(_WAITING).order_by(_job.run_at).limit(1)).scalar()

    def recent_drops(self) -> Mapping[tuple[str, Dropped], int]:
        """Count the work that the broker dropped, by queue and reason, in the newest events."""
        newest = select(_entry.name, _entry.event).order_by(_entry.cursor.desc()).limit(RECENT)
        with self.database.reading() as connection:
            texts = [event for name, event in connection.execute(newest).all() if name == Deferred.name]
        events = [event for each in texts if isinstance(event := decode(each.encode()), Deferred)]
        reasons = {event.subject: event.data.reason for event in events if event.data.reason in get_args(Dropped)}
        with self.database.reading() as connection:
            queues = {job_id: job.queue for job_id, job in jobs.some(connection, reasons).items()}
        return Counter((queues.get(job_id) or "?", cast("Dropped", reason)) for job_id, reason in reasons.items())
