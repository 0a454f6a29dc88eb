"""Reads single jobs without a thread, so that an event loop can do it itself. For SQLite only.

A change of threads costs twice what such a read does. Writers do not block it, since the file has a
write-ahead log, and this connection waits for no lock. Whatever else may be wrong, the caller reads in a thread then,
with the time limits and error messages of all other reads. It does so for a while, too, when the disk is slow.
"""

import sqlite3
import time
from typing import Final

from sqlalchemy import URL

from jobtape.schemas.job import Job
from jobtape.view import tables
from jobtape.view.rows import job_from_driver
from jobtape.view.sql import sqlite

SLOW: Final = 0.01
"""Seconds that a read may take. After ``MAX_SLOW`` slow ones in succession the caller reads in a thread for ``PAUSE``
seconds. One alone may be that of a process that had to wait for a processor.
"""
MAX_SLOW: Final = 3
PAUSE: Final = 1.0

_COLUMNS: Final = tuple(column.name for column in tables.jobs.columns)
_JOB: Final = f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE id = ?"  # noqa: S608 - our own names


class NeedsThread(Exception):
    """The caller reads in a thread."""


class QuickReads:
    """Reads the view in the database ``url``. Use it in one thread. Connects at the first call."""

    def __init__(self, url: URL) -> None:
        self._path = sqlite.path_of(url) if url.drivername == "sqlite" else None
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._not_before = 0.0
        self._slow = 0

    def close(self) -> None:
        """Close the connection. A later call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def job(self, job_id: str) -> Job | None:
        """Return the job, or None when the folded part of the tape has no event of it. Raises NeedsThread."""
        began = time.monotonic()
        if self._path is None or began < self._not_before:
            raise NeedsThread
        try:
            file = sqlite.identity(self._path)
            if self._connection is None or file is None or file != self._file:
                self.close()
                self._connection, self._file = self._connect(), file
            # All rows are taken, because a statement that has more to return keeps its snapshot.
            rows = self._connection.execute(_JOB, (job_id,)).fetchall()
        except sqlite3.Error:
            self.close()
            self._not_before = began + PAUSE
            raise NeedsThread from None
        self._slow = self._slow + 1 if time.monotonic() - began > SLOW else 0
        if self._slow >= MAX_SLOW:
            self._not_before = time.monotonic() + PAUSE
        return job_from_driver(rows[0]) if rows else None

    def _connect(self) -> sqlite3.Connection:
        assert self._path is not None
        connection = sqlite.connect(self._path, "read", timeout=0)
        try:
            if connection.execute("SELECT version_num FROM alembic_version").fetchall() != [(tables.SCHEMA_VERSION,)]:
                raise sqlite3.DatabaseError("tables of another version")
        except sqlite3.Error:
            connection.close()
            raise
        return connection
