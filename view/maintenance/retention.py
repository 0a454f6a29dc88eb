"""Removes jobs that ended long ago, with their history. A tombstone stays, so that a late event does not restore one.

Jobs are removed by id, the oldest first, a few in each transaction, so that other writers do not wait. The history for
listeners then begins after the newest removed event (``checkpoint.horizon``).
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, exists, func, or_, select, text, true

from jobtape.schemas import ids
from jobtape.schemas.events import decode
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import Job
from jobtape.view import checkpoint, projection, tables
from jobtape.view.rows import gates_from_text
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart
from jobtape.view.tables import FoldedTables
from jobtape.view.tallies import Tally, TallyKey, held_keys, state_key
from jobtape.view.values import Pruned

CHUNK: Final = 200
"""Jobs in one transaction."""
NEWEST: Final = 100
"""Events that are examined to find an import."""
_CLOSED: Final = text(f"NOT ({tables.OPEN})")
_job = tables.jobs.c
_stone = tables.tombstones.c
_GONE: Final = {
    dialect: select(_stone.job_id).where(bulk.one_of(dialect, _stone.job_id, "job_ids"))
    for dialect in ("sqlite", "postgresql")
}


class JobRetention(StorePart):
    """Removes jobs, and says which ones were removed."""

    def prune(self, owner: str, before: datetime, after: str = "") -> Pruned | None:
        """Remove up to ``CHUNK`` jobs that ended before that time, with ids greater than ``after``.

        Jobs whose last event the relay or a webhook has still to get stay, failed ones that hold their ordering key,
        and those of a flow that has not ended before that time.
        Returns None, and removes nothing, when ``owner`` is not the active projector.
        """
        hook = tables.webhooks.c
        unpublished = or_(
            exists(select(tables.relay.c.id).where(tables.relay.c.cursor < _job.cursor)),
            exists(select(hook.id).where(hook.enabled, hook.cursor < _job.cursor)),
        )
        flow = tables.jobs.alias()
        kept = exists(
            select(flow.c.id).where(
                flow.c.id == _job.flow,
                # The jobs of a flow within a flow go after it, so that those of the outer one are kept as long.
                or_(flow.c.finished_at.is_(None), flow.c.finished_at >= before, flow.c.flow.is_not(None)),
            )
        )
        old = (
            select(_job.id)
            .where(_CLOSED, _job.finished_at < before, _job.id > after, _job.id < ids.first_id_at(before))
            .where(~unpublished, ~_job.has_slots, or_(_job.flow.is_(None), ~kept))
            .order_by(_job.id)
            .limit(CHUNK)
        )
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return None
            found = connection.execute(old).scalars().all()
            if found:
                _remove(connection, found)
            return Pruned(len(found), found[-1] if len(found) == CHUNK else None)

    def prune_rest(self, owner: str, before: datetime, tombstones: float) -> bool:
        """Remove dead messages that came before that time, and tombstones older than ``tombstones`` seconds.

        Returns False, and removes nothing, when ``owner`` is not the active projector.
        """
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            connection.execute(delete(tables.dead).where(tables.dead.c.at < before))
            connection.execute(delete(tables.tombstones).where(_stone.at < NOW - tombstones))
            return True

    def importing(self) -> bool:
        """Return whether an import seems to be in progress: one of the newest events is of another tape."""
        newest = select(tables.history.c.job_id).order_by(tables.history.c.cursor.desc()).limit(NEWEST).subquery()
        found = select(_job.id).join(newest, newest.c.job_id == _job.id).where(_job.imported).limit(1)
        with self.database.reading() as connection:
            return connection.execute(found).first() is not None

    def gone(self, job_ids: Collection[str]) -> set[str]:
        """Return those of the jobs that were removed."""
        if not job_ids:
            return set()
        with self.database.reading() as connection:
            return set(connection.execute(_GONE[self.database.dialect], {"job_ids": list(job_ids)}).scalars())

    def removed_since(self, time: float) -> set[str]:
        """Return the jobs that were removed at ``time`` or later, in seconds of the database's clock."""
        with self.database.reading() as connection:
            return set(connection.execute(select(_stone.job_id).where(_stone.at >= time)).scalars())


def _remove(connection: Connection, job_ids: Sequence[str]) -> None:
    entry = tables.history.c
    newest = connection.execute(select(func.max(entry.cursor)).where(entry.job_id.in_(job_ids))).scalar() or 0
    added = remove_jobs(connection, job_ids, tables.SERVING)
    projection.add_to_tally(connection, added, tables.tally_of_removed)
    stones = bulk.upsert(connection.dialect.name, tables.tombstones).values(at=NOW).on_conflict_do_nothing()
    connection.execute(stones, [{"job_id": job_id} for job_id in job_ids])
    checkpoint.raise_horizon(connection, newest)


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
    # Where a rebuild has not folded to their ends yet, they may be held.
    held = select(job.type, job.gates, job.follow_ups).where(known, text(tables.HELD))
    for job_type, gates, follow_ups in connection.execute(held):
        of = None if gates is None else gates_from_text(gates)
        for key in held_keys(job_type, of, follows=follow_ups is not None):
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
