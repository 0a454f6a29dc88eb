"""Writes what a batch of events has changed, in the caller's transaction."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Table, case, delete

from jobtape.schemas.job import Job
from jobtape.view import tables
from jobtape.view.rows import history_to_row, job_to_row, unreadable_to_row
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.driver import DriverConnection
from jobtape.view.tables import FoldedTables
from jobtape.view.tallies import Ages, FailureSpan, TallyKey
from jobtape.view.values import FoldedBatch

LABEL_LIMIT: Final = 200
"""Characters of a label's name or value. PostgreSQL cannot index longer ones, so no list finds a job by them; the job
itself has them."""
BARRIERS_KEPT: Final = 3600.0
"""Seconds."""
_OLD_BARRIERS: Final = delete(tables.barriers).where(tables.barriers.c.at < NOW - BARRIERS_KEPT)


def write(connection: DriverConnection, batch: FoldedBatch) -> None:
    """Write all of ``batch`` except the checkpoint.

    If one of its new jobs is known, an insert fails; if one was removed, the transaction raises NothingChanged.
    """
    if batch.new:
        connection.require_none(batch.new, tables.tombstones.c.job_id)
    write_folded(connection, batch, tables.SERVING)
    if batch.barriers:
        _write_barriers(connection, batch)


def write_folded(connection: Connection | DriverConnection, batch: FoldedBatch, into: FoldedTables) -> None:
    """Write the jobs and events of ``batch``, without its barriers."""
    bulk.insert(connection, into.jobs, [job_to_row(job) for job in batch.jobs if job.id in batch.new])
    others = [job_to_row(job) for job in batch.jobs if job.id not in batch.new]
    bulk.insert(connection, into.jobs, others, on_conflict="replace")
    bulk.insert(connection, into.job_labels, _labels(batch.jobs), on_conflict="keep")
    bulk.insert(connection, into.history, [history_to_row(entry) for entry in batch.history])
    bulk.insert(connection, into.unreadable, [unreadable_to_row(entry) for entry in batch.unreadable])
    add_to_tally(connection, batch.tally, into.tally)
    if batch.failures:
        _write_failures(connection, batch.failures, into.failures)


def add_to_tally(connection: Connection | DriverConnection, sums: Mapping[TallyKey, int], table: Table) -> None:
    """Add to the sums of a table."""
    bulk.insert(connection, table, Ages(time.time()).rows(sums), on_conflict="add")


def _labels(jobs: Iterable[Job]) -> list[tuple[str, str, str]]:
    """Return the rows of all labels. They never change, but a later batch may bring them again."""
    return [
        (name, value, job.id)
        for job in jobs
        for name, value in (job.labels or {}).items()
        if len(name) <= LABEL_LIMIT and len(value) <= LABEL_LIMIT
    ]


def _write_failures(connection: Connection | DriverConnection, failures: Iterable[FailureSpan], table: Table) -> None:
    rows = [
        {**asdict(span.group), "first": span.first, "last": span.last, "newest": span.newest}
        for span in sorted(failures, key=lambda span: span.group.id)
    ]
    connection.execute(span_failures(connection.dialect.name, table), rows)


def _write_barriers(connection: DriverConnection, batch: FoldedBatch) -> None:
    rows = [{"process": process, "seq": seq} for process, seq in batch.barriers.items()]
    connection.execute(_raise_barrier(connection.dialect.name), rows)
    # Each start of a process uses a new name, so old rows would only accumulate.
    connection.execute(_OLD_BARRIERS)


# Statements are built once: for a small batch, building them takes longer than executing them.
@cache
def span_failures(dialect: str, failures: Table, source: Any = None) -> Any:
    """Return the insert of failure groups, whose times are extended where a group exists."""
    insert = bulk.upsert(dialect, failures)
    insert = insert if source is None else insert.from_select(list(failures.c.keys()), source)
    first, new = failures.c.first, insert.excluded
    span = {name: bulk.greater(failures.c[name], new[name]) for name in ("last", "newest")}
    span["first"] = case((new.first < first, new.first), else_=first)
    return insert.on_conflict_do_update(index_elements=["id"], set_=span)


@cache
def _raise_barrier(dialect: str) -> Any:
    insert = bulk.upsert(dialect, tables.barriers).values(at=NOW)
    highest = bulk.greater(tables.barriers.c.seq, insert.excluded.seq)
    return insert.on_conflict_do_update(index_elements=["process"], set_={"seq": highest, "at": insert.excluded.at})
