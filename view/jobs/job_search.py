"""Finds the jobs of a query, also of one that searches in what the jobs contain.

Theory of operation. Payloads, results and errors are JSON texts without an index. A search goes through the jobs that
fit the other filters, newest first, in chunks. The database says which texts contain the wanted words at all, so that
few texts are read and parsed here. A page ends after ``MOST_SCANNED`` jobs or ``LONGEST`` seconds, and says where the
next page begins: a search takes nobody's turn for long.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, func, literal, select, true

from jobtape.schemas import plainjson
from jobtape.schemas.events import Redriven as RedrivenEvent
from jobtape.schemas.events import decode
from jobtape.schemas.filters.job_filter import REDRIVE
from jobtape.schemas.filters.job_search import JobSearch
from jobtape.schemas.job import Job, JobRun, JobState
from jobtape.view import tables
from jobtape.view.jobs import queries as jobs
from jobtape.view.sql import bulk
from jobtape.view.sql.database import StorePart
from jobtape.view.values import FoundJobs, JobQuery

MOST_SCANNED: Final = 20_000
LONGEST: Final = 1.0
FIRST_CHUNK, LARGEST_CHUNK = 200, 5000
QUICK: Final = 0.1
"""Seconds for one chunk; the next one is larger if it took less, and smaller if it took more."""
PARSED_AT_ONCE: Final = 50
"""Jobs that are read by one statement: payloads may be large."""
MOST_COUNTED: Final = 1_000_000
COUNTED_AT_ONCE: Final = 50_000
"""Jobs that are counted by one statement: far within the time limit of a read."""

MOST_REDRIVEN: Final = 20_000
"""Jobs of one redrive whose outcomes are counted."""

_job = tables.jobs.c


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of redriven jobs. ``states``: numbers of jobs by state. ``later``: how many were redriven again."""

    states: dict[JobState, int]
    later: int


class JobSearcher(StorePart):
    """Reads of jobs by queries that may search in the jobs."""

    def page(self, query: JobQuery) -> FoundJobs[Job]:
        """Return jobs that fit ``query``."""
        end = time.monotonic() + LONGEST
        found: list[Job] = []
        scanned, size, before = 0, FIRST_CHUNK, query.before
        while True:
            began = time.monotonic()
            size = min(size, MOST_SCANNED - scanned)
            rows = self._scan(replace(query, before=before, limit=size))
            candidates = [n for n, (_, hit) in enumerate(rows) if hit]
            for first in range(0, len(candidates), PARSED_AT_ONCE):
                chunk = candidates[first : first + PARSED_AT_ONCE]
                for n, job in zip(chunk, self._read([rows[n][0] for n in chunk]), strict=True):
                    if job is not None and query.search.fits(job):
                        found.append(job)
                        if len(found) == query.limit:
                            return FoundJobs(found, job.id, scanned + n + 1)
                if time.monotonic() > end:
                    return FoundJobs(found, rows[chunk[-1]][0], scanned + chunk[-1] + 1)
            scanned += len(rows)
            if len(rows) < size:
                return FoundJobs(found, None, scanned)
            before, took = rows[-1][0], time.monotonic() - began
            if scanned >= MOST_SCANNED or time.monotonic() > end:
                return FoundJobs(found, before, scanned)
            size = min(size * 2, LARGEST_CHUNK) if took < QUICK else max(size // 2, PARSED_AT_ONCE)

    def runs(self, query: JobQuery) -> FoundJobs[JobRun]:
        """Return the runs of the jobs that fit ``query``, which may have a search."""
        if query.search:
            found = self.page(query)
            runs = [JobRun(job.id, job.type, job.run, job.attempt, job.correlation_id) for job in found.jobs]
            return FoundJobs(runs, found.before, found.scanned)
        columns = select(_job.id, _job.type, _job.run, _job.attempt, _job.correlation_id)
        statement = jobs.listing(self.database, columns, replace(query, limit=query.limit + 1))
        with self.database.reading() as connection:
            rows = [JobRun(*row) for row in connection.execute(statement).all()]
        page = rows[: query.limit]
        return FoundJobs(page, page[-1].id if len(rows) > len(page) else None, len(page))

    def newest_by_label(self, name: str, values: Sequence[str]) -> dict[str, Job]:
        """Return the newest job with each value of a label, by the value. Reads one entry of the index for each."""
        label = tables.job_labels.c
        newest = select(func.max(label.job_id)).where(label.name == name, label.value == bindparam("label_value"))
        with self.database.reading() as connection:
            ids = {value: connection.execute(newest, {"label_value": value}).scalar() for value in values}
            found = jobs.some(connection, [job_id for job_id in ids.values() if job_id is not None])
        return {value: found[job_id] for value, job_id in ids.items() if job_id in found}

    def redriven(self, job_id: str) -> Redriven | None:
        """Return what became of the jobs that the redrive ``job_id`` ran again. None if there is no such job.

        Reads the tape's history from the submission of the redrive to its last event.
        """
        entry, wanted = tables.history.c, f"{job_id}/"
        with self.database.reading() as connection:
            redrive = jobs.some(connection, [job_id]).get(job_id)
            if redrive is None or redrive.type != REDRIVE:
                return None
            own = select(func.min(entry.cursor), func.max(entry.cursor)).where(entry.job_id == job_id)
            first, last = connection.execute(own).one()
            range_of = entry.cursor > first if not redrive.final else entry.cursor.between(first, last)
            rows = select(entry.event).where(range_of, entry.name == RedrivenEvent.name, entry.accepted)
            runs: dict[str, int] = {}
            for event in connection.scalars(rows.order_by(entry.cursor).limit(MOST_REDRIVEN)):
                read = decode(event.encode())
                # It has an id of each execution, of which there may be several.
                if (read.causationid or "").startswith(wanted):
                    runs[read.subject] = read.data.run
            states = Counter[JobState]()
            later = 0
            for chunk in bulk.chunks(runs):
                of = select(_job.id, _job.state, _job.run).where(_job.id.in_(chunk))
                for row in connection.execute(of):
                    if row.run > runs[row.id]:
                        later += 1
                    else:
                        states[JobState(row.state)] += 1
        return Redriven(dict(states), later)

    def count(self, query: JobQuery) -> int:
        """Return how many jobs fit the query, ``MOST_COUNTED`` at most. Ignores its search and its limit."""
        counted, before = 0, query.before
        while counted < MOST_COUNTED:
            part = replace(query, before=before, limit=COUNTED_AT_ONCE)
            fitting = jobs.listing(self.database, select(_job.id), part).subquery()
            with self.database.reading() as connection:
                count, before = connection.execute(select(func.count(), func.min(fitting.c.id))).one()
            counted += count
            if count < COUNTED_AT_ONCE:
                break
        return counted

    def _scan(self, query: JobQuery) -> Sequence[tuple[str, bool]]:
        """Return the ids of jobs, and whether each may fit the search."""
        columns = select(_job.id, _may_fit(self.database.dialect, query.search))
        statement = jobs.listing(self.database, columns, query)
        with self.database.reading() as connection:
            rows = connection.execute(statement).all()
        return [(job_id, bool(hit)) for job_id, hit in rows]

    def _read(self, job_ids: Sequence[str]) -> list[Job | None]:
        with self.database.reading() as connection:
            found = jobs.some(connection, job_ids)
        return [found.get(job_id) for job_id in job_ids]


def _may_fit(dialect: str, search: JobSearch) -> ColumnElement[Any]:
    """Return the condition that the texts of a job contain the texts of the search, wherever that is."""
    contains = func.instr if dialect == "sqlite" else func.strpos
    conditions: list[ColumnElement[bool]] = [
        contains(_job[each.part], literal(_as_in_json(each.text))) > 0 for each in search.values
    ]
    if search.error:
        conditions.append(_job.error.is_not(None))
        # SQLite knows upper and lower case of ASCII letters only.
        if search.error.isascii():
            conditions.append(contains(func.lower(_job.error), literal(_as_in_json(search.error.lower()))) > 0)
    return and_(true(), *conditions)


def _as_in_json(text: str) -> str:
    return plainjson.dumps(text).decode()[1:-1]
