"""The view as it was: jobs at an earlier cursor, and the cursor of a time.

Theory of operation. Each history row has the job after its event. So a job at a cursor is its newest row at or before
the cursor: one lookup in the index by job. These rows have no payload and no result. A payload never changes once it is
known, so the table ``jobs`` has it; a result is in the accepted event ``succeeded`` of the run.

A list reads the jobs by id, the newest first, as the list of now does, and looks up the newest row of each. What never
changes (type, queue, labels, id) is filtered with the indexes of now; state and reason are filtered by the row, so many
jobs may be examined for few that fit. A page examines at most ``EXAMINED`` jobs, and says where the next page begins.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BindParameter, Connection, bindparam, func, select

from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.events import Succeeded, decode
from jobtape.schemas.job import Job, JobState
from jobtape.view import tables
from jobtape.view.jobs import newest_first
from jobtape.view.rows import job_as_of
from jobtape.view.sql.database import StorePart
from jobtape.view.values import JobQuery, PastPage

EXAMINED: Final = 10_000
"""Jobs that one page examines at most."""

_job = tables.jobs.c
_entry = tables.history.c
_inner = tables.history.alias().c
_then: BindParameter[int] = bindparam("cursor")
_NEWEST = select(func.max(_inner.cursor)).where(_inner.job_id == _job.id, _inner.cursor <= _then).scalar_subquery()
_JOBS_THEN = select(_job.id, _job.payload, _entry.after).select_from(
    tables.jobs.join(tables.history, _entry.cursor == _NEWEST)
)
_FIRST_FROM = select(_entry.time).where(_entry.cursor >= _then).order_by(_entry.cursor).limit(1)
_LAST = select(func.max(_entry.cursor))
_SUCCESSES = select(_entry.job_id, _entry.event).where(_entry.name == Succeeded.name, _entry.accepted)


class PastView(StorePart):
    """Reads the past. ``cursor``: one within ``CommittedHistory.reach``."""

    def job(self, job_id: str, cursor: int) -> Job | None:
        """Return the job after its events up to and including ``cursor``, or None when there were none."""
        statement = _JOBS_THEN.where(_job.id == job_id)
        with self.database.reading() as connection:
            row = connection.execute(statement, {"cursor": cursor}).first()
            return None if row is None else _with_results(connection, [job_as_of(row.after, row.payload)])[0]

    def page(self, query: JobQuery, cursor: int) -> PastPage:
        """Return at most ``query.limit`` jobs that fitted the query then, the newest id first."""
        with self.database.reading() as connection:
            wide = replace(query, states=(), reasons=(), limit=EXAMINED)
            ids = newest_first(select(_job.id), wide).subquery()
            floor, count = connection.execute(select(func.min(ids.c.id), func.count())).one()
            floor = floor or ""
            before = None if count < EXAMINED else floor
            fitting = newest_first(_JOBS_THEN, query, state=_entry.state, reason=_entry.reason)
            rows = connection.execute(fitting.where(_job.id >= floor).limit(query.limit + 1), {"cursor": cursor}).all()
            if len(rows) > query.limit:
                rows, before = rows[: query.limit], rows[query.limit - 1].id
            found = [job_as_of(row.after, row.payload) for row in rows]
            if query.queues or query.labels:
                # Before its submission was read, the queue and the labels of a job were not known.
                found = [job for job in found if job.submitted_at is not None]
            return PastPage(_with_results(connection, found), before)

    def cursor_at(self, time: datetime) -> tuple[int, bool]:
        """Find an event that is not later than ``time`` while the next one is.

        Returns its cursor, 0 when there is none, and whether it is the last event. Times come from many clocks and are
        not sorted, so several events may fit. A bisection over the bits of the cursor, which does not depend on where
        the history begins or ends, chooses one of them.
        """
        with self.database.reading() as connection:
            last = connection.execute(_LAST).scalar() or 0
            cursor = 0
            for bit in reversed(range(MAX_CURSOR.bit_length())):
                higher = cursor | (1 << bit)
                if higher > last:
                    continue
                found = connection.execute(_FIRST_FROM, {"cursor": higher}).scalar()
                if found is not None and found <= time:
                    cursor = higher
            return cursor, cursor == last


def _with_results(connection: Connection, jobs: Sequence[Job]) -> list[Job]:
    succeeded = {job.id: job for job in jobs if job.state is JobState.SUCCEEDED}
    results = _results(connection, succeeded) if succeeded else {}
    return [replace(job, result=results[job.id]) if job.id in results else job for job in jobs]


def _results(connection: Connection, succeeded: dict[str, Job]) -> dict[str, Any]:
    newest = _SUCCESSES.where(_entry.cursor.in_([job.cursor for job in succeeded.values()]))
    events = {row.job_id: row.event for row in connection.execute(newest).all()}
    for job_id in succeeded.keys() - events.keys():
        # Its submission came after its end, and was the last accepted event.
        earlier = _SUCCESSES.where(_entry.job_id == job_id, _entry.cursor < succeeded[job_id].cursor)
        if row := connection.execute(earlier.order_by(_entry.cursor.desc()).limit(1)).first():
            events[job_id] = row.event
    return {job_id: _result(event) for job_id, event in events.items()}


def _result(text: str) -> Any:
    event = decode(text.encode())
    assert isinstance(event, Succeeded)
    return event.data.result
