"""Writing what a batch of events changed, in the caller's transaction."""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, Table, case, delete
from sqlalchemy.dialects import postgresql, sqlite

from jobtape.schemas.job import Job
from jobtape.view import clock, tables
from jobtape.view.rows import history_to_row, job_to_row, unreadable_to_row
from jobtape.view.values import Batch

# In characters: PostgreSQL indexes no entry above a third of a page, and a label from the tape must not stop the fold.
# A longer one stands in the job all the same, but no list finds it.
LABEL_LIMIT: Final = 200
BARRIERS_KEPT: Final = 3600.0  # seconds


def write(connection: Connection, batch: Batch) -> None:
    """Write all of ``batch`` except the checkpoint."""
    if batch.jobs:
        _write_jobs(connection, batch.jobs)
    if batch.history:
        connection.execute(tables.history.insert(), [history_to_row(entry) for entry in batch.history])
    if batch.unreadable:
        connection.execute(tables.unreadable.insert(), [unreadable_to_row(entry) for entry in batch.unreadable])
    if batch.counts:
        _add_counts(connection, batch)
    if batch.barriers:
        _note_barriers(connection, batch)


def _upsert(connection: Connection, table: Table) -> Any:
    # The same words in both dialects, but two classes without a common base.
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _write_jobs(connection: Connection, jobs: Iterable[Job]) -> None:
    insert = _upsert(connection, tables.jobs)
    values = {column.name: insert.excluded[column.name] for column in tables.jobs.c if not column.primary_key}
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=values), [job_to_row(j) for j in jobs])
    labels = [
        {"name": name, "value": value, "job_id": job.id}
        for job in jobs
        for name, value in (job.labels or {}).items()
        if len(name) <= LABEL_LIMIT and len(value) <= LABEL_LIMIT
    ]
    if labels:
        connection.execute(_upsert(connection, tables.job_labels).on_conflict_do_nothing(), labels)


def _add_counts(connection: Connection, batch: Batch) -> None:
    insert = _upsert(connection, tables.counts)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["job_type", "event"], set_={"n": tables.counts.c.n + insert.excluded.n}
        ),
        [{"job_type": job_type, "event": event, "n": n} for (job_type, event), n in batch.counts.items()],
    )


def _note_barriers(connection: Connection, batch: Batch) -> None:
    now = clock.now(connection.dialect.name)
    insert = _upsert(connection, tables.barriers).values(at=now)
    old = tables.barriers.c.seq
    highest = case((insert.excluded.seq > old, insert.excluded.seq), else_=old)
    connection.execute(
        insert.on_conflict_do_update(index_elements=["process"], set_={"seq": highest, "at": insert.excluded.at}),
        [{"process": process, "seq": seq} for process, seq in batch.barriers.items()],
    )
    # Every start of a process has a name of its own; the table stays as small as the number of the living.
    connection.execute(delete(tables.barriers).where(tables.barriers.c.at < now - BARRIERS_KEPT))
