"""Connections to the database, with a check of the version of its tables and errors that say what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from jobtape.schemas.errors import ViewUnavailable
from jobtape.view import tables
from jobtape.view.sql import engine, postgres
from jobtape.view.sql.driver import DriverConnection
from jobtape.view.sql.failures import failure_of, no_tables
from jobtape.view.sql.roles import TIMEOUT
from jobtape.view.sql.urls import parse_url, url_for_messages

_ERRORS_OF_CALLER = (
    IntegrityError,
    DataError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    psycopg.IntegrityError,
    psycopg.DataError,
)


class Database:
    """Connections for reading and for writing. Failures of the database raise ViewUnavailable.

    ``url``: as in ``DATABASE_URL``. ``timeout``: seconds to wait for a lock or an answer. Connects at the first use.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self.url = parse_url(url)
        self.name = url_for_messages(self.url)
        self.dialect = "sqlite" if self.url.drivername == "sqlite" else "postgresql"
        self._readers = engine.open_engine(self.url, "read", timeout)
        self._writers = engine.open_engine(self.url, "write", timeout)
        self._driver = engine.open_engine(self.url, "fold", timeout)
        self._version_seen = False

    def close(self) -> None:
        """Close all connections. A later call opens new ones."""
        self._readers.dispose()
        self._writers.dispose()
        self._driver.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection for reads. Each statement sees what was committed before it began."""
        with self.translating_errors(), self._readers.connect() as connection:
            engine.begin_reading(connection)
            self._check_version(connection)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that may write. It is committed at the end and rolled back on any error."""
        with self.translating_errors(), self._writers.begin() as connection:
            self._check_version(connection)
            yield connection

    @contextmanager
    def by_driver(self, role: Literal["read", "fold"]) -> Iterator[DriverConnection]:
        """Open a connection in autocommit whose statements the driver executes; it may write as ``driver``."""
        engine_of_role = self._readers if role == "read" else self._driver
        with self.translating_errors(), engine_of_role.connect() as connection:
            self._check_version(connection)
            try:
                yield engine.by_driver(connection)
            except (sqlite3.Error, psycopg.Error) as error:
                engine.end_failed(connection, error)
                raise

    def own_session(self) -> "psycopg.Connection[Any] | None":
        """Open a session of PostgreSQL for reads that belongs to the caller, in autocommit; None behind a pooler."""
        with self.translating_errors():
            with self._readers.connect() as connection:
                self._check_version(connection)
                if postgres.settings_of_transaction(connection) is not None:
                    return None
            session = self._readers.raw_connection()
            driver: psycopg.Connection[Any] = session.driver_connection  # type: ignore[assignment]
            session.detach()
            # Another connection object of psycopg would give its prepared statements the same names.
            try:
                driver.execute("DEALLOCATE ALL")
            except BaseException:
                driver.close()
                raise
            return driver

    @contextmanager
    def translating_errors(self, *, migrating: bool = False) -> Iterator[None]:
        """Raise ViewUnavailable for failures of the database. Errors of the caller (constraints) pass unchanged.

        ``migrating``: the tables are created here.
        """
        try:
            yield
        except _ERRORS_OF_CALLER:
            raise
        except (SQLAlchemyError, sqlite3.Error, psycopg.Error, OSError) as error:
            self._version_seen = False
            # Without the cause, since errors of drivers may quote the connection string.
            raise failure_of(error, self.url, self.name, migrating=migrating) from None

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


class StorePart:
    """Base class of the parts of ``Store``. Each call is one read or one transaction, and blocks.

    Every call raises ViewUnavailable when the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
