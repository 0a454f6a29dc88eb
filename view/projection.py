"""Writes what a batch of events has changed, in the caller's transaction."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, delete

from jobtape.schemas.job import Job
from jobtape.view import tables
from jobtape.view.rows import history_to_row, job_to_row, unreadable_to_row
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.tables import FoldedTables
from jobtape.view.values import Batch

LABEL_LIMIT: Final = 200
"""Characters of a label's name or value. PostgreSQL cannot index longer ones, so no list finds a job by them; the job
itself has them."""
BARRIERS_KEPT: Final = 3600.0
"""Seconds."""


def write(connection: Connection, batch: Batch) -> None:
    """Write all of ``batch`` except the checkpoint."""
    write_folded(connection, batch, tables.SERVING)
    if batch.barriers:
        _write_barriers(connection, batch)


def write_folded(connection: Connection, batch: Batch, into: FoldedTables) -> None:
    """Write the jobs and events of ``batch``, without its barriers."""
    bulk.insert(connection, into.jobs, [job_to_row(job) for job in batch.jobs], on_conflict="replace")
    bulk.insert(connection, into.job_labels, _labels(batch.jobs), on_conflict="keep")
    bulk.insert(connection, into.history, [history_to_row(entry) for entry in batch.history])
    bulk.insert(connection, into.unreadable, [unreadable_to_row(entry) for entry in batch.unreadable])
    if batch.counts:
        insert = bulk.upsert(connection, into.counts)
        insert = insert.on_conflict_do_update(
            index_elements=["job_type", "event"], set_={"n": into.counts.c.n + insert.excluded.n}
        )
        rows = [{"job_type": job_type, "event": event, "n": n} for (job_type, event), n in batch.counts.items()]
        connection.execute(insert, rows)


def _labels(jobs: Iterable[Job]) -> list[tuple[str, str, str]]:
    """Return the rows of all labels. They never change, but a later batch may bring them again."""
    return [
        (name, value, job.id)
        for job in jobs
        for name, value in (job.labels or {}).items()
        if len(name) <= LABEL_LIMIT and len(value) <= LABEL_LIMIT
    ]


def _write_barriers(connection: Connection, batch: Batch) -> None:
    insert = bulk.upsert(connection, tables.barriers).values(at=NOW)
    highest = bulk.greater(tables.barriers.c.seq, insert.excluded.seq)
    insert = insert.on_conflict_do_update(index_elements=["process"], set_={"seq": highest, "at": insert.excluded.at})
    connection.execute(insert, [{"process": process, "seq": seq} for process, seq in batch.barriers.items()])
    # Each start of a process uses a new name, so old rows would only accumulate.
    connection.execute(delete(tables.barriers).where(tables.barriers.c.at < NOW - BARRIERS_KEPT))
