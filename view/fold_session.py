"""What the projector reads and writes for each batch of messages, over one connection."""

import sqlite3
from collections.abc import Collection

import psycopg

from jobtape.schemas.job import Job
from jobtape.view import checkpoint, projection, tables
from jobtape.view.rows import job_from_driver
from jobtape.view.sql.driver import DriverConnection, NothingChanged
from jobtape.view.values import FoldedBatch


class FoldSession:
    """One batch. Raises the driver's errors, which ``Database.by_driver`` translates."""

    def __init__(self, connection: DriverConnection) -> None:
        self._connection = connection
        self._gone: set[str] = set()

    def jobs(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Return the jobs that are known, by id."""
        if not job_ids:
            return {}
        # In the same round trip: which jobs are no longer kept.
        found, gone = self._connection.select_in(job_ids, tables.jobs.c.id, tables.tombstones.c.job_id)
        self._gone = {row[0] for row in gone}
        return {job.id: job for job in map(job_from_driver, found)}

    def gone(self, job_ids: Collection[str]) -> set[str]:
        """Return those of the jobs that were removed. They must be among those of the last call of ``jobs``."""
        return self._gone.intersection(job_ids)

    def commit(self, owner: str, expected: tuple[int, int | None], batch: FoldedBatch, lease_seconds: float) -> bool:
        """See ``Store.commit``."""
        try:
            with self._connection.transaction():
                checkpoint.advance(self._connection, owner, expected, batch, lease_seconds)
                projection.write(self._connection, batch)
        except NothingChanged:
            return False
        except (sqlite3.IntegrityError, psycopg.errors.UniqueViolation):
            if not batch.new:
                raise
            return False
        return True
