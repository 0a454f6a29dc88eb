"""A database that is ready for us, and what to do when it isn't: the version check and the errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view import tables
from jobtape.view.sql import engine
from jobtape.view.sql.failures import failure_of, no_tables
from jobtape.view.sql.roles import PATIENCE
from jobtape.view.sql.urls import parse_url, url_for_messages


class Database:
    """Connections for reading and for writing; their failures are ViewUnavailable with what to do.

    ``url`` as in ``DATABASE_URL``; ``patience``: seconds to wait for a lock or an answer. Nothing connects yet.
    """

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        self.url = parse_url(url)
        self.name = url_for_messages(self.url)
        self.dialect = "sqlite" if self.url.drivername == "sqlite" else "postgresql"
        self._readers = engine.open_engine(self.url, "read", patience)
        self._writers = engine.open_engine(self.url, "write", patience)
        self._version_seen = False

    def close(self) -> None:
        """Give back all connections; a later call opens new ones."""
        self._readers.dispose()
        self._writers.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for statements that each see what is committed when they begin."""
        with self.translating_errors(), self._readers.connect() as connection:
            engine.begin_reading(connection)
            self._check_version(connection)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction that may write: committed at the end, rolled back on any error."""
        with self.translating_errors(), self._writers.begin() as connection:
            self._check_version(connection)
            yield connection

    @contextmanager
    def translating_errors(self, *, making: bool = False) -> Iterator[None]:
        """Turn the database's failures into ViewUnavailable. What a caller did wrong (constraints) passes through.

        ``making``: the tables are to be made here.
        """
        try:
            yield
        except (IntegrityError, DataError):
            raise
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            self._version_seen = False
            # Without its cause: drivers' errors may quote a connection string.
            raise failure_of(error, self.url, self.name, making=making) from None

    def _check_version(self, connection: Connection) -> None:
        if self._version_seen:
            return
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if version is None:
            raise ViewUnavailable(no_tables(self.name))
        if version < tables.SCHEMA_VERSION:
            raise ViewUnavailable(
                f"the tables in {self.name} are of version {version} and this program needs {tables.SCHEMA_VERSION}: "
                "run `jobtape init`"
            )
        if version > tables.SCHEMA_VERSION:
            raise ViewUnavailable(
                f"the tables in {self.name} are of version {version}, newer than this program "
                f"({tables.SCHEMA_VERSION}): update Jobtape here"
            )
        self._version_seen = True
