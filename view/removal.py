"""Removes jobs from folded tables, and keeps what they have added to the sums."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, select, true

from jobtape.schemas.events import decode
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from jobtape.view import projection, tables
from jobtape.view.sql import bulk
from jobtape.view.tables import FoldedTables
from jobtape.view.tallies import Tally, TallyKey, state_key

FOLDED_AT_ONCE: Final = 20
"""Jobs whose events are read by one statement: payloads may be large."""


def remove_jobs(connection: Connection, job_ids: Sequence[str], own: FoldedTables) -> dict[TallyKey, int]:
    """Remove jobs with their history and labels, and take them from the sums of their states.

    Returns what their events have added to the other sums, which stays there.
    """
    tally = Tally()
    for first in range(0, len(job_ids), FOLDED_AT_ONCE):
        _fold_again(connection, job_ids[first : first + FOLDED_AT_ONCE], own, tally)
    job = own.jobs.c
    known = job.id.in_(job_ids) & job.submitted_at.is_not(None)
    states: dict[TallyKey, int] = {}
    for row in connection.execute(select(job.state, job.type, job.queue, job.failure).where(known)):
        key = state_key(*row)
        states[key] = states.get(key, 0) - 1
    projection.add_to_tally(connection, states, own.tally)
    for column in (own.history.c.job_id, own.job_labels.c.job_id, job.id):
        connection.execute(delete(column.table).where(column.in_(job_ids)))
    return tally.sums()


def _fold_again(connection: Connection, job_ids: Sequence[str], own: FoldedTables, tally: Tally) -> None:
    jobs: dict[str, Job] = {}
    entry = own.history.c
    accepted = select(entry.cursor, entry.event).where(entry.job_id.in_(job_ids), entry.accepted)
    for cursor, body in connection.execute(accepted.order_by(entry.cursor)):
        event = decode(body.encode())
        before = jobs.get(event.subject)
        after = jobs[event.subject] = evolve(before, event, cursor)
        if after is not before:
            tally.add(before, event, after)


def add_removed(connection: Connection, own: FoldedTables) -> None:
    """Add to tables that were folded again what is not in the history, because retention removed the jobs."""
    sums = connection.execute(select(tables.tally_of_removed)).all()
    bulk.insert(connection, own.tally, [tuple(row) for row in sums], on_conflict="add")
    groups = select(tables.failures).where(true())  # with a WHERE, or SQLite takes the ON CONFLICT for that of a join
    connection.execute(projection.span_failures(connection.dialect.name, own.failures, groups))
