"""Jobs that are not final: on which queues they are, and which should have been done by now.

Both reads use the partial index ``jobs_open``, so they cost as little with a million jobs as with ten.
"""

from datetime import datetime

from sqlalchemy import Connection, func, select, text

from jobtape.schemas.job import Job
from jobtape.view import tables
from jobtape.view.rows import job_from_row
from jobtape.view.sql import clock
from jobtape.view.values import OpenJobsMoment

_OPEN = text(tables.OPEN)
_job = tables.jobs.c


def moment(connection: Connection) -> OpenJobsMoment | None:
    """The database's time and how far the tape is folded, as one; None before the first start."""
    row = connection.execute(
        select(clock.now(connection.dialect.name), tables.checkpoint.c.epoch, tables.checkpoint.c.offset)
    ).first()
    return None if row is None else OpenJobsMoment(row[0], row[1], row[2])


def queues(connection: Connection) -> list[str]:
    """The queues that open jobs are on, in order: one look into the index for each, however many jobs there are."""
    found: list[str] = []
    following = select(func.min(_job.queue)).where(_OPEN)
    last = connection.execute(following).scalar()
    while last is not None:
        found.append(last)
        last = connection.execute(following.where(_job.queue > last)).scalar()
    return found


def overdue(connection: Connection, queue: str, due: datetime, cursor: int, after: str, limit: int) -> list[Job]:
    """Open jobs of ``queue`` that were due by then, and of which the tape has said nothing behind ``cursor``; by id,
    from the first behind ``after``. Not those of another tape, which were on no queue here.
    """
    statement = (
        select(tables.jobs)
        .where(_OPEN, _job.queue == queue, _job.run_at <= due, _job.cursor <= cursor, _job.id > after, ~_job.imported)
        .order_by(_job.id)
        .limit(limit)
    )
    return [job_from_row(row) for row in connection.execute(statement).all()]
