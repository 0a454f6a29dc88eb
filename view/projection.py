"""Writes what a batch of events has changed, in the caller's transaction."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Table, delete

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
_OLD_BARRIERS: Final = delete(tables.barriers).where(tables.barriers.c.at < NOW - BARRIERS_KEPT)


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
        rows = [{"job_type": job_type, "event": event, "n": n} for (job_type, event), n in batch.counts.items()]
        connection.execute(_count(connection.dialect.name, into.counts), rows)


def _labels(jobs: Iterable[Job]) -> list[tuple[str, str, str]]:
    """Return the rows of all labels. They never change, but a later batch may bring them again."""
    return [
        (name, value, job.id)
        for job in jobs
        for name, value in (job.labels or {}).items()
        if len(name) <= LABEL_LIMIT and len(value) <= LABEL_LIMIT
    ]


def _write_barriers(connection: Connection, batch: Batch) -> None:
    rows = [{"process": process, "seq": seq} for process, seq in batch.barriers.items()]
    connection.execute(_raise_barrier(connection.dialect.name), rows)
    # Each start of a process uses a new name, so old rows would only accumulate.
    connection.execute(_OLD_BARRIERS)


# Statements are built once: for a small batch, building them takes longer than executing them.
@cache
def _count(dialect: str, counts: Table) -> Any:
    insert = bulk.upsert(dialect, counts)
    return insert.on_conflict_do_update(
        index_elements=["job_type", "event"], set_={"n": counts.c.n + insert.excluded.n}
    )


@cache
def _raise_barrier(dialect: str) -> Any:
    insert = bulk.upsert(dialect, tables.barriers).values(at=NOW)
    highest = bulk.greater(tables.barriers.c.seq, insert.excluded.seq)
    return insert.on_conflict_do_update(index_elements=["process"], set_={"seq": highest, "at": insert.excluded.at})
