"""Reading what is known of jobs: one, some, a page of a list, their events, and the numbers beside them."""

from collections.abc import Collection
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, select

from jobtape.schemas import ids
from jobtape.schemas.job import Job
from jobtape.view import tables
from jobtape.view.rows import history_from_row, job_from_row
from jobtape.view.values import ClosedJob, HistoryRow, JobQuery, UnreadableRow

_CHUNK = 500  # ids in one statement; both databases take at least 32,000

# Made once: with so many columns, building the statement would take longer than running it.
_ONE = select(tables.jobs).where(tables.jobs.c.id == bindparam("job_id"))


def one(connection: Connection, job_id: str) -> Job | None:
    """The job, or None."""
    row = connection.execute(_ONE, {"job_id": job_id}).first()
    return None if row is None else job_from_row(row)


def some(connection: Connection, job_ids: Collection[str], table: Table = tables.jobs) -> dict[str, Job]:
    """Those of the jobs that are known to ``table``, by id."""
    found: dict[str, Job] = {}
    rest = iter(job_ids)
    while chunk := list(islice(rest, _CHUNK)):
        for row in connection.execute(_some(table), {"job_ids": chunk}).all():
            job = job_from_row(row)
            found[job.id] = job
    return found


@cache
def _some(table: Table) -> Select[Any]:
    return select(table).where(table.c.id.in_(bindparam("job_ids", expanding=True)))


def page(connection: Connection, query: JobQuery) -> list[Job]:
    """The jobs that fit ``query``, newest id first, ``query.limit`` at most."""
    return [job_from_row(row) for row in connection.execute(newest_first(select(tables.jobs), query)).all()]


def closed(connection: Connection, query: JobQuery) -> list[ClosedJob]:
    """Of the jobs that fit ``query`` what a redrive needs, without their payloads and results."""
    job = tables.jobs.c
    columns = select(job.id, job.type, job.run, job.correlation_id, job.submitted_at)
    return [
        ClosedJob(id=row[0], type=row[1], run=row[2], correlation_id=row[3], known=row[4] is not None)
        for row in connection.execute(newest_first(columns, query)).all()
    ]


def newest_first(
    statement: Select[Any],
    query: JobQuery,
    *,
    state: ColumnElement[str] = tables.jobs.c.state,
    reason: ColumnElement[str] = tables.jobs.c.reason,
) -> Select[Any]:
    """``statement``, which is about jobs, for those that fit ``query``; ``state`` and ``reason`` say what theirs is."""
    job = tables.jobs.c
    statement = statement.order_by(job.id.desc()).limit(query.limit)
    lists = ((job.type, query.types), (state, query.states), (job.queue, query.queues), (reason, query.reasons))
    for column, values in lists:
        if len(values) == 1:
            # Plain equality lets the index give the order too.
            statement = statement.where(column == str(values[0]))
        elif values:
            statement = statement.where(column.in_([str(value) for value in values]))
    for name, value in query.labels:
        label = tables.job_labels.alias()
        statement = statement.join(label, label.c.job_id == job.id).where(label.c.name == name, label.c.value == value)
    if query.since is not None:
        statement = statement.where(job.id >= ids.first_id_at(query.since))
    if query.until is not None:
        statement = statement.where(job.id < ids.first_id_at(query.until))
    if query.before is not None:
        statement = statement.where(job.id < query.before)
    if query.whole:
        statement = statement.where(job.submitted_at.is_not(None))
    return statement


def events(connection: Connection, job_id: str | None, after: int, limit: int) -> list[HistoryRow]:
    """The events of one job or of all, in the tape's order, from the first behind the cursor ``after``."""
    entry = tables.history.c
    statement = select(tables.history).where(entry.cursor > after).order_by(entry.cursor).limit(limit)
    if job_id is not None:
        statement = statement.where(entry.job_id == job_id)
    return [history_from_row(row) for row in connection.execute(statement).all()]


def unreadable(connection: Connection, after: int, limit: int) -> list[UnreadableRow]:
    """What could not be read, in the tape's order, from the first behind the cursor ``after``."""
    entry = tables.unreadable.c
    statement = select(tables.unreadable).where(entry.cursor > after).order_by(entry.cursor).limit(limit)
    rows = connection.execute(statement).mappings().all()
    return [UnreadableRow(cursor=row["cursor"], reason=row["reason"], body=bytes(row["body"])) for row in rows]


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """How many events were accepted, by job type and event name."""
    rows = connection.execute(select(tables.counts.c.job_type, tables.counts.c.event, tables.counts.c.n)).all()
    return {(job_type, event): n for job_type, event, n in rows}


def passed_barrier(connection: Connection, process: str) -> int:
    """The highest number of the process's barriers that the fold has passed; 0 for none in the last hour."""
    row = connection.execute(select(tables.barriers.c.seq).where(tables.barriers.c.process == process)).first()
    return 0 if row is None else int(row[0])
