"""Writing what a batch of events changed, in the caller's transaction."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Table, case, delete

from jobtape.schemas.job import Job
from jobtape.view import outbox, tables
from jobtape.view.rows import history_to_row, job_to_row, unreadable_to_row
from jobtape.view.sql import bulk, clock
from jobtape.view.tables import Folded
from jobtape.view.values import Batch

# In characters: PostgreSQL indexes no entry above a third of a page, and a label from the tape must not stop the fold.
# A longer one stands in the job all the same, but no list finds it.
LABEL_LIMIT: Final = 200
BARRIERS_KEPT: Final = 3600.0  # seconds


def write(connection: Connection, batch: Batch) -> None:
    """Write all of ``batch`` except the checkpoint."""
    write_folded(connection, batch, tables.SERVING)
    outbox.remove(connection, batch.seen)
    outbox.add(connection, batch.effects)
    if batch.barriers:
        _note_barriers(connection, batch)


def write_folded(connection: Connection, batch: Batch, into: Folded) -> None:
    """Write what ``batch`` says of jobs, and nothing of what follows from it."""
    bulk.insert(connection, into.jobs, [job_to_row(job) for job in batch.jobs], on_conflict="replace")
    bulk.insert(connection, into.job_labels, _labels(batch.jobs), on_conflict="keep")
    bulk.insert(connection, into.history, [history_to_row(entry) for entry in batch.history])
    if batch.unreadable:
        connection.execute(into.unreadable.insert(), [unreadable_to_row(entry) for entry in batch.unreadable])
    if batch.counts:
        _add_counts(connection, batch, into.counts)


def _labels(jobs: Iterable[Job]) -> list[dict[str, str]]:
    """A job's labels never change, but which batch brings them first isn't worth knowing."""
    return [
        {"name": name, "value": value, "job_id": job.id}
        for job in jobs
        for name, value in (job.labels or {}).items()
        if len(name) <= LABEL_LIMIT and len(value) <= LABEL_LIMIT
    ]


def _add_counts(connection: Connection, batch: Batch, counts: Table) -> None:
    rows = [{"job_type": job_type, "event": event, "n": n} for (job_type, event), n in batch.counts.items()]
    connection.execute(_counts_statement(connection.dialect.name, counts), rows)


@cache
def _counts_statement(dialect: str, counts: Table) -> Any:
    insert = bulk.upsertable(dialect, counts)
    return insert.on_conflict_do_update(
        index_elements=["job_type", "event"], set_={"n": counts.c.n + insert.excluded.n}
    )


def _note_barriers(connection: Connection, batch: Batch) -> None:
    rows = [{"process": process, "seq": seq} for process, seq in batch.barriers.items()]
    connection.execute(_barriers_statement(connection.dialect.name), rows)
    # Every start of a process has a name of its own; the table stays as small as the number of the living.
    too_old = clock.now(connection.dialect.name) - BARRIERS_KEPT
    connection.execute(delete(tables.barriers).where(tables.barriers.c.at < too_old))


@cache
def _barriers_statement(dialect: str) -> Any:
    insert = bulk.upsertable(dialect, tables.barriers).values(at=clock.now(dialect))
    old, new = tables.barriers.c.seq, insert.excluded.seq
    highest = case((new > old, new), else_=old)
    return insert.on_conflict_do_update(index_elements=["process"], set_={"seq": highest, "at": insert.excluded.at})
