"""Jobs that are not final: their queues, those that are overdue, and work that the broker dropped.

The reads of queues and overdue jobs use the partial index ``jobs_open``. So a million closed jobs cost nothing. The
reads of dropped work have no index: dropped work is rare, and they read the events of few jobs or the newest events.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import func, select, text

from jobtape.schemas.events import Dropped, Requeued, decode
from jobtape.schemas.job import Job
from jobtape.view import tables
from jobtape.view.rows import job_from_row
from jobtape.view.sql.database import StorePart

RECENT: Final = 2000
"""Events that are read to find recent drops."""

_OPEN = text(tables.OPEN)
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

        Sorted by id, from the first id after ``after``. Imported jobs are left out, because their work was never on a
        queue of this broker.
        """
        statement = (
            select(tables.jobs)
            .where(_OPEN, _job.queue == queue, _job.run_at <= due, _job.cursor <= cursor, _job.id > after)
            .where(~_job.imported)
            .order_by(_job.id)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [job_from_row(row) for row in connection.execute(statement).all()]

    def dropped_placements(self, jobs: Collection[Job]) -> Mapping[str, int]:
        """Return by job id how often the work of its present run was placed again because the broker dropped it."""
        if not jobs:
            return {}
        runs = {job.id: job.run for job in jobs}
        rows = select(_entry.event).where(_entry.job_id.in_(runs), _entry.name == Requeued.name)
        with self.database.reading() as connection:
            texts = connection.execute(rows).scalars().all()
        numbers: dict[str, set[int]] = {}
        for text_ in texts:
            event = decode(text_.encode())
            if isinstance(event, Requeued) and event.data.dropped is not None and event.data.run == runs[event.subject]:
                numbers.setdefault(event.subject, set()).add(event.data.n)
        return {job_id: len(found) for job_id, found in numbers.items()}

    def recent_drops(self) -> Mapping[tuple[str, Dropped], int]:
        """Count what the broker dropped, by queue and reason, in the newest events and in the outbox."""
        newest = select(_entry.name, _entry.event).order_by(_entry.cursor.desc()).limit(RECENT)
        row = tables.outbox.c
        outbox = select(row.event).order_by(row.due.desc(), row.id).limit(RECENT)
        with self.database.reading() as connection:
            texts = [event for name, event in connection.execute(newest).all() if name == Requeued.name]
            texts += connection.execute(outbox).scalars()
        events = (decode(each.encode()) for each in texts)
        found = {
            event.id: (event.data.order.queue, event.data.dropped)
            for event in events
            if isinstance(event, Requeued) and event.data.dropped is not None
        }
        return Counter(found.values())
