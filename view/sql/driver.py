"""Statements that the driver executes itself, for what the projector does with every batch.

SQLAlchemy's work around an execution takes longer than most of these statements. PostgreSQL gets them in a pipeline:
they are sent one after the other, and their answers are awaited together.
"""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any, Final

import psycopg
from sqlalchemy import Column, Dialect, TypeDecorator
from sqlalchemy.dialects import sqlite


class NothingChanged(Exception):
    """The row that an update must change is not there, or a row is there that must not be."""


Parameters = Mapping[str, Any]
Rows = Sequence[Sequence[Any]]

_STATEMENTS: Final = 256


class DriverConnection(ABC):
    """A connection that executes statements by the driver. The drivers' own errors pass."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @abstractmethod
    def select_in(self, values: Collection[str], *columns: Column[str]) -> list[list[tuple[Any, ...]]]:
        """Return for each column the rows of its table where it has one of ``values``, as the driver returns them.

        At most 32,000 values, which is what SQLite accepts.
        """

    @abstractmethod
    def select(self, statement: Any, parameters: Parameters) -> list[list[Any]]:
        """Return the rows of a query, which must be built once, with the values that its columns have in Python."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Return a context in which statements are one transaction, which is rolled back on any error.

        It raises NothingChanged, here or at the statement, if that is why it is rolled back.
        """

    @abstractmethod
    def change_one(self, statement: Any, parameters: Parameters) -> None:
        """Execute an update of one row. If there is no such row, the transaction raises NothingChanged."""

    @abstractmethod
    def require_none(self, values: Collection[str], column: Column[str]) -> None:
        """If a row has one of at most 32,000 ``values`` in ``column``, the transaction raises NothingChanged."""

    @abstractmethod
    def execute(self, statement: Any, parameters: Parameters | Sequence[Parameters] = ()) -> None:
        """Execute a statement, which must be built once, for one set of parameters or for several."""

    @abstractmethod
    def exec_driver_sql(self, statement: str, rows: Rows) -> None:
        """Execute SQL for rows: an insert with SQLite, ``COPY … FROM STDIN`` with PostgreSQL."""


class SqliteConnection(DriverConnection):
    """A connection to a SQLite file, in autocommit."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        super().__init__(_SQLITE)
        self._driver = driver

    def select_in(self, values: Collection[str], *columns: Column[str]) -> list[list[tuple[Any, ...]]]:
        marks = ",".join("?" * len(values))
        return [self._driver.execute(_select(each, f"IN ({marks})"), tuple(values)).fetchall() for each in columns]

    def select(self, statement: Any, parameters: Parameters) -> list[list[Any]]:
        rows = self._driver.execute(*_compiled(statement, self.dialect, parameters)).fetchall()
        return python_values(rows, statement, self.dialect)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._driver.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._driver.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._driver.rollback()
            raise

    def change_one(self, statement: Any, parameters: Parameters) -> None:
        if self._driver.execute(*_compiled(statement, self.dialect, parameters)).rowcount != 1:
            raise NothingChanged

    def require_none(self, values: Collection[str], column: Column[str]) -> None:
        marks = ",".join("?" * len(values))
        if self._driver.execute(_select(column, f"IN ({marks}) LIMIT 1"), tuple(values)).fetchall():
            raise NothingChanged

    def execute(self, statement: Any, parameters: Parameters | Sequence[Parameters] = ()) -> None:
        for each in _sets(parameters):
            self._driver.execute(*_compiled(statement, self.dialect, each))

    def exec_driver_sql(self, statement: str, rows: Rows) -> None:
        self._driver.executemany(statement, rows)


class PostgresConnection(DriverConnection):
    """A session on PostgreSQL, in autocommit. ``settings``: SQL for the beginning of each transaction, of a session
    behind a pooler; it has no pipeline.
    """

    def __init__(self, dialect: Dialect, driver: "psycopg.Connection[Any]", settings: str | None) -> None:
        super().__init__(dialect)
        self._driver = driver
        self._settings = settings
        self._copies: list[tuple[str, Rows]] = []

    def select_in(self, values: Collection[str], *columns: Column[str]) -> list[list[tuple[Any, ...]]]:
        # For one statement a pipeline would be more work. Behind a pooler, reads are in transactions.
        alone = nullcontext() if len(columns) == 1 else self._pipelined()
        with alone if self._settings is None else self.transaction():
            found = [self._driver.execute(select_one_of(each).encode(), [list(values)]) for each in columns]
            return [cursor.fetchall() for cursor in found]

    def select(self, statement: Any, parameters: Parameters) -> list[list[Any]]:
        query = encoded(statement, self.dialect, parameters)
        with nullcontext() if self._settings is None else self.transaction():
            rows = self._driver.execute(*query).fetchall()
        return python_values(rows, statement, self.dialect)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._copies.clear()
        try:
            with self._pipelined():
                self._driver.execute(b"BEGIN")
                if self._settings is not None:
                    self._driver.execute(self._settings.encode())
                yield
                if not self._copies:
                    self._driver.execute(b"COMMIT")
            if self._copies:
                self._copy()
                self._driver.execute(b"COMMIT")
        except BaseException as error:
            with suppress(psycopg.Error):
                self._driver.rollback()
            if isinstance(error, psycopg.errors.DivisionByZero):
                raise NothingChanged from None
            raise

    def change_one(self, statement: Any, parameters: Parameters) -> None:
        # The server itself ends the transaction, so the statements after this one need not wait for its answer.
        text, values = _compiled(statement, self.dialect, parameters)
        checked = f"WITH changed AS ({text} RETURNING 1) SELECT 1 / count(*) FROM changed"  # noqa: S608 - our own SQL
        self._driver.execute(checked.encode(), values)

    def require_none(self, values: Collection[str], column: Column[str]) -> None:
        found = _select(column, "= ANY (%s) LIMIT 1")
        checked = f"WITH found AS ({found}) SELECT 1 / (1 - count(*)) FROM found"  # noqa: S608 - our own SQL
        self._driver.execute(checked.encode(), [list(values)])

    def execute(self, statement: Any, parameters: Parameters | Sequence[Parameters] = ()) -> None:
        for each in _sets(parameters):
            self._driver.execute(*encoded(statement, self.dialect, each))

    def exec_driver_sql(self, statement: str, rows: Rows) -> None:
        self._copies.append((statement, rows))  # a pipeline has no COPY

    def _copy(self) -> None:
        for statement, rows in self._copies:
            with self._driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                for row in rows:
                    copy.write_row(row)

    def _pipelined(self) -> AbstractContextManager[object]:
        return nullcontext() if self._settings is not None else self._driver.pipeline()


_SQLITE: Final = sqlite.dialect(paramstyle="named")


def _sets(parameters: Parameters | Sequence[Parameters]) -> Sequence[Parameters]:
    if isinstance(parameters, Mapping):
        return [parameters]
    return parameters or [{}]


def select_one_of(column: Column[str]) -> str:
    """Return PostgreSQL's query for the rows whose ``column`` has one of the values in its one parameter, a list."""
    return _select(column, "= ANY (%s)")


@lru_cache(_STATEMENTS)
def _select(column: Column[str], condition: str) -> str:
    names = ", ".join(f'"{each.name}"' for each in column.table.columns)
    return f'SELECT {names} FROM "{column.table.name}" WHERE "{column.name}" {condition}'  # noqa: S608 - our own names


def _compiled(statement: Any, dialect: Dialect, parameters: Parameters) -> tuple[str, dict[str, Any]]:
    compiled, processors = _compile(statement, dialect, tuple(parameters))
    values = compiled.construct_params(parameters)
    for name, processor in processors.items():
        values[name] = processor(values[name])
    return compiled.string, values


def encoded(statement: Any, dialect: Dialect, parameters: Parameters) -> tuple[bytes, dict[str, Any]]:
    """Return the SQL of a statement, which must be built once, and the values of its parameters for the driver."""
    text, values = _compiled(statement, dialect, parameters)
    return text.encode(), values


def python_values(rows: Rows, statement: Any, dialect: Dialect) -> list[list[Any]]:
    """Return the driver's rows of a query with the values that its columns have in Python."""
    found = [list(row) for row in rows]
    for index, processor in _processors(statement, dialect):
        for row in found:
            row[index] = processor(row[index])
    return found


@lru_cache(_STATEMENTS)
def _processors(statement: Any, dialect: Dialect) -> list[tuple[int, Callable[[Any], Any]]]:
    processors = []
    for index, column in enumerate(statement.selected_columns):
        kind = column.type if isinstance(column.type, TypeDecorator) else column.type.dialect_impl(dialect)
        if (processor := kind.result_processor(dialect, None)) is not None:
            processors.append((index, processor))
    return processors


@lru_cache(_STATEMENTS)
def _compile(statement: Any, dialect: Dialect, names: tuple[str, ...]) -> tuple[Any, dict[str, Callable[[Any], Any]]]:
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    processors = {}
    for bind, name in compiled.bind_names.items():
        kind = bind.type if isinstance(bind.type, TypeDecorator) else bind.type.dialect_impl(dialect)
        if (processor := kind.bind_processor(dialect)) is not None:
            processors[name] = processor
    return compiled, processors
