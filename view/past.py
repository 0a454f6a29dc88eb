"""The view as it was: jobs as their events up to a cursor had left them, and the cursor that a time stands for.

Theory of operation. Every history row holds the job after its event, so a job at a cursor is its newest row at or
before it: one look into the index by job. Payload and result are not in these rows. A payload never changes once it is
known, so it stands in ``jobs``; a result is that of the run's accepted ``succeeded``.

A list goes through the jobs by id, newest first, as the list of today does, and asks each for its newest row then. What
never changes (type, queue, labels, id) is asked of today's indexes; state and reason only of the row, so many jobs may
have to be looked at for few that fit. A page looks at LOOK of them and no more, and says where the next goes on.
"""

from collections.abc import Iterable, Sequence
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
from jobtape.view.sql.database import Database
from jobtape.view.values import JobQuery, PastPage

LOOK: Final = 10_000
"""Jobs that one page looks at."""

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


class PastView:
    """Reads; each call blocks, and raises ViewUnavailable as all of the store's do.

    ``cursor`` is a point that the view has passed and whose history it has (``Committed.reach``).
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def job(self, job_id: str, cursor: int) -> Job | None:
        """The job as its events up to and with ``cursor`` had left it, or None when there were none."""
        statement = _JOBS_THEN.where(_job.id == job_id)
        with self._database.reading() as connection:
            row = connection.execute(statement, {"cursor": cursor}).first()
            return None if row is None else _with_results(connection, [job_as_of(row.after, row.payload)])[0]

    def page(self, query: JobQuery, cursor: int) -> PastPage:
        """The jobs that fitted ``query`` then, newest id first, ``query.limit`` at most."""
        with self._database.reading() as connection:
            floor, end = _stretch(connection, query)
            fitting = newest_first(_JOBS_THEN, query, state=_entry.state, reason=_entry.reason)
            rows = connection.execute(fitting.where(_job.id >= floor).limit(query.limit + 1), {"cursor": cursor}).all()
            before = None if end else floor
            if len(rows) > query.limit:
                rows, before = rows[: query.limit], rows[query.limit - 1].id
            found = [job_as_of(row.after, row.payload) for row in rows]
            if query.queues or query.labels:
                # Before its submission was read, nobody knew its queue.
                found = [job for job in found if job.submitted_at is not None]
            return PastPage(_with_results(connection, found), before)

    def cursor_at(self, time: datetime) -> tuple[int, bool]:
        """The cursor of an event that is not later than ``time``, while the next one is; 0 when there is none. And
        whether it is the last event there is.

        Times come from many clocks and do not rise strictly, so there may be several such places. A bisection over the
        cursor's bits, which does not depend on where the history begins or ends, decides for one of them.
        """
        with self._database.reading() as connection:
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


def _stretch(connection: Connection, query: JobQuery) -> tuple[str, bool]:
    """The smallest id that a page may look at, and whether there are no smaller ones."""
    wide = replace(query, states=(), reasons=(), limit=LOOK)
    ids = newest_first(select(_job.id), wide).subquery()
    floor, count = connection.execute(select(func.min(ids.c.id), func.count())).one()
    return floor or "", count < LOOK


def _with_results(connection: Connection, jobs: Sequence[Job]) -> list[Job]:
    succeeded = [job for job in jobs if job.state is JobState.SUCCEEDED]
    events = _successes(connection, succeeded)
    return [replace(job, result=events[job.id]) if job.id in events else job for job in jobs]


def _successes(connection: Connection, jobs: Iterable[Job]) -> dict[str, Any]:
    """The results of succeeded jobs, by id."""
    open_ = {job.id: job for job in jobs}
    if not open_:
        return {}
    at_once = _SUCCESSES.where(_entry.cursor.in_([job.cursor for job in open_.values()]))
    events = {row.job_id: row.event for row in connection.execute(at_once).all()}
    for job_id in open_.keys() - events.keys():
        # Its submission came later than its end, and was the last that counted.
        earlier = _SUCCESSES.where(_entry.job_id == job_id, _entry.cursor < open_[job_id].cursor)
        if row := connection.execute(earlier.order_by(_entry.cursor.desc()).limit(1)).first():
            events[job_id] = row.event
    return {job_id: _result(event) for job_id, event in events.items()}


def _result(text: str) -> Any:
    event = decode(text.encode())
    assert isinstance(event, Succeeded)
    return event.data.result
