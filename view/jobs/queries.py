"""Queries on a table of jobs, for the view of now, the view of the past and rebuilds."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, UnaryExpression, select, text
from sqlalchemy.sql.operators import custom_op

from jobtape.schemas import ids
from jobtape.schemas.job import Job
from jobtape.schemas.job_types.job_type import BUILTIN_PREFIX
from jobtape.schemas.queueing.gates import key_group
from jobtape.view import tables
from jobtape.view.jobs.statistics import JobCount, Statistics
from jobtape.view.rows import job_from_row
from jobtape.view.sql import bulk
from jobtape.view.sql.database import Database
from jobtape.view.values import JobQuery


def some(connection: Connection, job_ids: Collection[str], table: Table = tables.jobs) -> dict[str, Job]:
    """Return the jobs that ``table`` has, by id."""
    found = [
        job_from_row(row)
        for chunk in bulk.chunks(job_ids)
        for row in connection.execute(_some(connection.dialect.name, table), {"job_ids": chunk}).all()
    ]
    return {job.id: job for job in found}


@cache
def _some(dialect: str, table: Table) -> Select[Any]:
    """Built once: with so many columns, building the statement takes longer than running it."""
    return select(table).where(bulk.one_of(dialect, table.c.id, "job_ids"))


def listing(database: Database, columns: Select[Any], query: JobQuery) -> Select[Any]:
    """Return ``newest_first`` of ``columns``. SQLite has no statistics, so choose the filter with fewest jobs."""
    named = (query.ids, query.labels, query.reasons, query.failures, query.flow, query.ordering_key, query.has_slots)
    # With one filter there is nothing to choose, and the others have an index of their own.
    if database.dialect == "postgresql" or len(_chosen(query)) < 2 or any(named):
        return newest_first(columns, query)
    return newest_first(columns, query, by=fewest(query, Statistics(database).jobs()))


def fewest(query: JobQuery, counts: Sequence[JobCount]) -> str:
    """Return the column by whose index the fewest jobs are read for a page. ``counts``: of all jobs."""
    chosen = _chosen(query)
    fitting = sum(count.n for count in counts if all(getattr(count, name) in chosen[name] for name in chosen))

    def reads(name: str) -> float:
        number = sum(count.n for count in counts if getattr(count, name) in chosen[name])
        # The part of the index with one value has the order of the list, so the reading ends when the page is full.
        return number * min(1, query.limit / max(1, fitting)) if len(chosen[name]) == 1 else number

    return min(chosen, key=reads)


def without_index(column: ColumnElement[str]) -> ColumnElement[str]:
    """Return the column with a plus before it: SQLite uses no index for that."""
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def _chosen(query: JobQuery) -> dict[str, Sequence[str]]:
    filters: dict[str, Sequence[str]] = {"type": query.types, "state": query.states, "queue": query.queues}
    return {name: values for name, values in filters.items() if values}


def newest_first(
    statement: Select[Any],
    query: JobQuery,
    *,
    state: ColumnElement[str] = tables.jobs.c.state,
    reason: ColumnElement[str] = tables.jobs.c.reason,
    by: str | None = None,
) -> Select[Any]:
    """Restrict a statement on the table of jobs to what fits ``query``, sorted by id, the newest first.

    ``state`` and ``reason``: the columns that have the state and the reason of a job. ``by``: of type, state and queue
    the column whose index SQLite uses, for a query with several of them.
    """
    job = tables.jobs.c
    labels = [tables.job_labels.alias() for _ in query.labels]
    # The same order, by the index of the label: SQLite does not see that, and would sort all jobs that have it.
    order = labels[0].c.job_id if labels and not _chosen(query) else job.id
    statement = statement.order_by(order.desc()).limit(query.limit)
    lists = (
        (job.type, query.types),
        (state, query.states),
        (job.queue, query.queues),
        (reason, query.reasons),
        (job.failure, query.failures),
    )
    for filtered, values in lists:
        column = filtered if by in (None, filtered.key) else without_index(filtered)
        if len(values) == 1:
            # With plain equality the index gives the order too.
            statement = statement.where(column == str(values[0]))
        elif values:
            statement = statement.where(column.in_([str(value) for value in values]))
    for label, (name, value) in zip(labels, query.labels, strict=True):
        statement = statement.join(label, label.c.job_id == job.id).where(label.c.name == name, label.c.value == value)
    if query.since is not None:
        statement = statement.where(job.id >= ids.first_id_at(query.since))
    if query.until is not None:
        statement = statement.where(job.id < ids.first_id_at(query.until))
    if query.ids:
        statement = statement.where(job.id.in_(query.ids))
    if not query.builtin:
        # A range, because LIKE ignores upper and lower case on SQLite.
        statement = statement.where((job.type < BUILTIN_PREFIX) | (job.type >= f"{BUILTIN_PREFIX[:-1]}/"))
    if query.before is not None:
        statement = statement.where(job.id < query.before)
    if query.flow is not None:
        statement = statement.where(job.flow == query.flow)
    if query.node is not None:
        statement = statement.where(job.node == query.node)
    if not query.imported:
        statement = statement.where(~job.imported)
    if query.ordering_key is not None:
        statement = statement.where(job.gate_group == key_group(query.ordering_key))
    if query.has_slots:
        statement = statement.where(text(tables.HAS_SLOTS))
    if query.whole:
        statement = statement.where(job.submitted_at.is_not(None))
    return statement
