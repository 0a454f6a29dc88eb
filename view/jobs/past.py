"""The view as it was: jobs at an earlier cursor, and the cursor of a time.

Theory of operation. A job at a cursor is the fold of its accepted events at or before the cursor. Most jobs have a few.
For a job with many, some history rows have a snapshot: the job after the event, without its payload, which never
changes once it is known, so the table ``jobs`` has it. The fold begins at the newest snapshot that is not too new.

A list reads the jobs by id, the newest first, as the list of now does, and looks up the newest row of each. What never
changes (type, queue, labels, id) is filtered with the indexes of now; state and reason are filtered by the row, so many
jobs may be examined for few that fit. A page examines at most ``EXAMINED`` jobs, and says where the next page begins.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import BindParameter, Connection, bindparam, func, select

from jobtape.schemas.cursor import MAX_CURSOR, next_epoch
from jobtape.schemas.events import decode
from jobtape.schemas.flows.state import FlowJob
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job, JobState
from jobtape.view import tables
from jobtape.view.jobs.queries import newest_first
from jobtape.view.rows import job_from_snapshot
from jobtape.view.sql.database import StorePart
from jobtape.view.values import JobQuery, PastPage, Position

EXAMINED: Final = 10_000
"""Jobs that one page examines at most."""

FOLDED_AT_ONCE: Final = 100
"""Jobs whose events are read by one statement: payloads may be large."""

_job = tables.jobs.c
_entry = tables.history.c
_inner = tables.history.alias().c
_then: BindParameter[int] = bindparam("cursor")
_then_or_before = (_inner.job_id == _job.id) & (_inner.cursor <= _then)
_NEWEST = select(func.max(_inner.cursor)).where(_then_or_before).scalar_subquery()
_IDS_THEN = select(_job.id).select_from(tables.jobs.join(tables.history, _entry.cursor == _NEWEST))
_ACCEPTED = select(func.max(_inner.cursor)).where(_then_or_before, _inner.accepted).scalar_subquery()
_FLOW_THEN = (
    select(_job.id, _job.node, _job.item, _entry.state, _entry.cursor, _job.imported)
    .select_from(tables.jobs.join(tables.history, _entry.cursor == _ACCEPTED))
    .where(_job.flow == bindparam("flow"))
)
_SNAPSHOT = select(func.max(_inner.cursor)).where(_then_or_before, _inner.snapshot.is_not(None)).scalar_subquery()
_SINCE_SNAPSHOT = (
    select(_job.id, _entry.cursor, _entry.event, _entry.snapshot)
    .select_from(tables.jobs.join(tables.history, _entry.job_id == _job.id))
    .where(_job.id.in_(bindparam("job_ids", expanding=True)))
    .where(_entry.accepted, _entry.cursor >= func.coalesce(_SNAPSHOT, 0), _entry.cursor <= _then)
    .order_by(_job.id, _entry.cursor)
)
_PAYLOAD = select(_job.payload).where(_job.id == bindparam("job_id"))
_FIRST_FROM = select(_entry.time).where(_entry.cursor >= _then).order_by(_entry.cursor).limit(1)
_TIME_AT = select(_entry.time).where(_entry.cursor <= _then).order_by(_entry.cursor.desc()).limit(1)
_LAST = select(func.max(_entry.cursor))
_FIRST = select(func.min(_entry.cursor)).where(_entry.cursor >= _then)
_LAST_BEFORE = select(func.max(_entry.cursor)).where(_entry.cursor < _then)
_AT = select(_entry.cursor, _entry.time).where(_entry.cursor >= _then).order_by(_entry.cursor).limit(1)


class PastView(StorePart):
    """Reads the past. ``cursor``: one within ``CommittedHistory.reach``."""

    def job(self, job_id: str, cursor: int) -> Job | None:
        """Return the job after its events up to and including ``cursor``, or None when there were none."""
        with self.database.reading() as connection:
            return _folded(connection, [job_id], cursor).get(job_id)

    def flow_jobs(self, flow: str, cursor: int, node: str | None = None) -> list[FlowJob]:
        """Return the jobs that the flow had then, or those of one node."""
        statement = _FLOW_THEN if node is None else _FLOW_THEN.where(_job.node == node)
        with self.database.reading() as connection:
            rows = connection.execute(statement, {"flow": flow, "cursor": cursor}).all()
        return [FlowJob(row[0], row[1], row[2], JobState(row[3]), 1, None, row[4], row[5]) for row in rows]

    def jobs(self, job_ids: Sequence[str], cursor: int) -> dict[str, Job]:
        """Return the jobs after their events up to and including ``cursor``, by id."""
        with self.database.reading() as connection:
            return _folded(connection, job_ids, cursor)

    def page(self, query: JobQuery, cursor: int) -> PastPage:
        """Return at most ``query.limit`` jobs that fitted the query then, the newest id first."""
        with self.database.reading() as connection:
            wide = replace(query, states=(), reasons=(), failures=(), limit=EXAMINED)
            examined = newest_first(select(_job.id), wide).subquery()
            floor, count = connection.execute(select(func.min(examined.c.id), func.count())).one()
            floor = floor or ""
            before = None if count < EXAMINED else floor
            then = replace(query, failures=())  # a job may have had another error then
            fitting = newest_first(_IDS_THEN, then, state=_entry.state, reason=_entry.reason)
            fitting = fitting.where(_job.id >= floor).limit(query.limit + 1)
            ids = connection.execute(fitting, {"cursor": cursor}).scalars().all()
            if len(ids) > query.limit:
                ids, before = ids[: query.limit], ids[query.limit - 1]
            jobs = _folded(connection, ids, cursor)
            # A job that was pruned meanwhile is left out.
            found = [jobs[job_id] for job_id in ids if job_id in jobs]
            if query.queues or query.labels:
                # Before its submission was read, the queue and the labels of a job were not known.
                found = [job for job in found if job.submitted_at is not None]
            if query.failures:
                found = [job for job in found if job.failure in query.failures]
            if query.search:
                found = [job for job in found if query.search.fits(job)]
            return PastPage(found, before)

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

    def time_at(self, cursor: int) -> datetime | None:
        """Return the time of the last event at or before ``cursor``; None when there is none."""
        with self.database.reading() as connection:
            return connection.execute(_TIME_AT, {"cursor": cursor}).scalar()

    def positions(self, number: int, since: int) -> list[Position]:
        """Return at most ``number`` events, at least 2, from the cursor ``since`` on: the first one, the last one, and
        others between which there are equally many messages on the tape.

        Counts nothing: it looks up one event for each position.
        """
        with self.database.reading() as connection:
            stretches = _stretches(connection, since)
            messages = sum(last - first + 1 for first, last in stretches)
            found: dict[int, Position] = {}
            for n in range(number if stretches else 0):
                cursor = _nth(stretches, n * (messages - 1) // (number - 1))
                row = connection.execute(_AT, {"cursor": cursor}).one()
                found[row.cursor] = Position(row.cursor, row.time)
            return list(found.values())


def _stretches(connection: Connection, since: int) -> list[tuple[int, int]]:
    """Return the first and the last cursor of each log from ``since`` on: between two logs numbers are left out."""
    found: list[tuple[int, int]] = []
    while (first := connection.execute(_FIRST, {"cursor": since}).scalar()) is not None:
        since = next_epoch(first)
        found.append((first, connection.execute(_LAST_BEFORE, {"cursor": since}).scalar_one()))
    return found


def _nth(stretches: Sequence[tuple[int, int]], n: int) -> int:
    """Return the n-th cursor of all in ``stretches``, counted from 0."""
    for first, last in stretches:
        if n <= last - first:
            return first + n
        n -= last - first + 1
    raise IndexError(n)


def _folded(connection: Connection, job_ids: Sequence[str], cursor: int) -> dict[str, Job]:
    """Return the jobs at ``cursor``, by id."""
    jobs: dict[str, Job] = {}
    for first in range(0, len(job_ids), FOLDED_AT_ONCE):
        chunk = job_ids[first : first + FOLDED_AT_ONCE]
        for job_id, at, event, snapshot in connection.execute(_SINCE_SNAPSHOT, {"job_ids": chunk, "cursor": cursor}):
            if snapshot is None:
                jobs[job_id] = evolve(jobs.get(job_id), decode(event.encode()), at)
            else:
                payload = connection.execute(_PAYLOAD, {"job_id": job_id}).scalar()
                jobs[job_id] = job_from_snapshot(snapshot, payload)
    return jobs
