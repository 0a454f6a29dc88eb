"""Lets go of jobs that ended long ago, with their history; a tombstone stays, so that no late event brings one back.

Jobs are taken by id, oldest first, a few in each transaction, so that nobody waits for it. What listeners read begins
behind the newest event that is gone (``checkpoint.horizon``).
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, case, delete, exists, func, select, text, update

from jobtape.schemas import ids
from jobtape.view import checkpoint, tables
from jobtape.view.sql import bulk, clock
from jobtape.view.sql.database import Database
from jobtape.view.values import Pruned

CHUNK: Final = 200
"""Jobs in one transaction."""
NEWEST: Final = 100
"""Events among which one of another tape says that an import goes on."""
_CLOSED: Final = text(f"NOT ({tables.OPEN})")
_job = tables.jobs.c


class JobRetention:
    """Prunes; each call is one transaction, blocks, and raises ViewUnavailable as all of the store's do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def prune(self, owner: str, before: datetime, after: str = "") -> Pruned | None:
        """Remove up to ``CHUNK`` jobs that ended before that time, of larger ids than ``after``, and whose last event
        the relay has behind it, if there is one; None, and nothing is done, when ``owner`` isn't the active projector.
        """
        with self._database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return None
            undelivered = exists(select(tables.relay.c.id).where(tables.relay.c.cursor < _job.cursor))
            old = (
                select(_job.id)
                .where(
                    _CLOSED, _job.finished_at < before, _job.id > after, _job.id < ids.first_id_at(before), ~undelivered
                )
                .order_by(_job.id)
                .limit(CHUNK)
            )
            found = list(connection.execute(old).scalars())
            if found:
                _remove(connection, found)
            return Pruned(len(found), found[-1] if len(found) == CHUNK else None)

    def prune_rest(self, owner: str, before: datetime, tombstones: float) -> bool:
        """Remove messages that came to the dead queue before that time, and tombstones older than so many seconds;
        False, and nothing is done, when ``owner`` isn't the active projector.
        """
        with self._database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            connection.execute(delete(tables.dead).where(tables.dead.c.at < before))
            too_old = clock.now(connection.dialect.name) - tombstones
            connection.execute(delete(tables.tombstones).where(tables.tombstones.c.at < too_old))
            return True

    def importing(self) -> bool:
        """Whether an import goes on, as far as it shows: among the newest events is one of another tape."""
        newest = select(tables.history.c.job_id).order_by(tables.history.c.cursor.desc()).limit(NEWEST).subquery()
        found = select(_job.id).join(newest, newest.c.job_id == _job.id).where(_job.imported).limit(1)
        with self._database.reading() as connection:
            return connection.execute(found).first() is not None

    def gone(self, job_ids: Collection[str]) -> set[str]:
        """Those of the jobs that were removed."""
        if not job_ids:
            return set()
        stone = tables.tombstones.c.job_id
        with self._database.reading() as connection:
            return set(connection.execute(select(stone).where(stone.in_(list(job_ids)))).scalars())

    def removed_since(self, time: float) -> set[str]:
        """The jobs that were removed at ``time`` or later, by the database's clock."""
        stone = tables.tombstones.c
        with self._database.reading() as connection:
            return set(connection.execute(select(stone.job_id).where(stone.at >= time)).scalars())


def _remove(connection: Connection, job_ids: list[str]) -> None:
    entry = tables.history.c
    newest = connection.execute(select(func.max(entry.cursor)).where(entry.job_id.in_(job_ids))).scalar() or 0
    stones = [{"job_id": job_id} for job_id in job_ids]
    statement = bulk.upsertable(connection.dialect.name, tables.tombstones)
    at = clock.now(connection.dialect.name)
    connection.execute(statement.values(at=at).on_conflict_do_nothing(), stones)
    connection.execute(delete(tables.history).where(entry.job_id.in_(job_ids)))
    connection.execute(delete(tables.job_labels).where(tables.job_labels.c.job_id.in_(job_ids)))
    connection.execute(delete(tables.jobs).where(_job.id.in_(job_ids)))
    horizon = tables.checkpoint.c.horizon
    connection.execute(update(tables.checkpoint).values(horizon=case((horizon < newest, newest), else_=horizon)))
