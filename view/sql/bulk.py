"""Inserts of one and of many rows, which differ between SQLite and PostgreSQL.

Many rows go in the form that was measured as the fastest on each database. SQLite: one prepared statement for many
tuples, without SQLAlchemy's work on each parameter. PostgreSQL: ``COPY`` where no row can exist already and there
are many rows. It takes less of the server's time than what comes next, and is never behind ``unnest``, a pipeline of
inserts, or binary ``COPY``. Otherwise one statement whose only parameter is the rows as a JSON array, since ``COPY``
waits for an answer in its middle.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final, Literal

from pydantic_core import to_json
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Table,
    Text,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from jobtape.view.sql.driver import DriverConnection

OnConflict = Literal["fail", "keep", "replace", "add"]
Rows = Sequence[Sequence[Any]]

COPIED: Final = 150
"""Rows from which on a batch is copied."""
_JSON_BYTES: Final = 4_000_000
"""In one statement: large enough to be fast, and far below the server's limit of 1 GB."""
_CHUNK: Final = 500
"""Values in one statement. Both databases accept at least 32,000."""


def insert(
    connection: Connection | DriverConnection, table: Table, rows: Rows, on_conflict: OnConflict = "fail"
) -> None:
    """Insert rows. A row whose key exists raises IntegrityError, leaves the old row as it is, replaces it, or adds its
    values to those of the old row.

    Each row has the values of all columns in their order: strings, numbers, booleans and None, times as ISO 8601
    text. A column has bytes in all rows or in none.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_for_sqlite(table, on_conflict), list(rows))
    elif on_conflict == "fail" and (len(rows) >= COPIED or isinstance(connection, Connection)):
        connection.exec_driver_sql(_copy(table), list(rows))
    else:
        for array in _json_arrays(table, rows):
            connection.execute(_for_postgresql(table, on_conflict), {"rows": array})


def insert_one(connection: Connection, table: Table, **values: Any) -> bool:
    """Insert one row; return False and change nothing when its key exists."""
    statement = upsert(connection.dialect.name, table).values(**values).on_conflict_do_nothing()
    return connection.execute(statement.returning(*table.primary_key)).first() is not None


def upsert(dialect: str, table: Table) -> Any:
    """Return the insert of the dialect. Both have the same ``on_conflict_…`` methods, but no common base with them."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def greater(column: ColumnElement[Any], value: Any) -> ColumnElement[Any]:
    """Return the expression of the greater of a column and a value."""
    return case((column < value, value), else_=column)


def one_of(dialect: str, column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """Return the condition that a column has one of the texts in the bound parameter ``name``, a list.

    PostgreSQL gets one array. With a parameter for each value, each number of values would be a statement of its own.
    """
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=postgresql.ARRAY(Text)))
    return column.in_(bindparam(name, expanding=True))


def chunks(values: Iterable[str]) -> Iterator[list[str]]:
    """Divide values into lists that are short enough for one statement."""
    rest = iter(values)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


@cache
def _for_sqlite(table: Table, on_conflict: OnConflict) -> str:
    statement = _with_conflict(sqlite.insert(table), table, on_conflict)
    compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
    assert compiled.positiontup == table.columns.keys()
    return str(compiled)


@cache
def _names(table: Table) -> list[str]:
    """Return the names of the columns as plain strings: SQLAlchemy's own take pydantic ten times as long to write."""
    return [str(name) for name in table.columns.keys()]  # noqa: SIM118 - not a dict


@cache
def _copy(table: Table) -> str:
    columns = ", ".join(f'"{name}"' for name in table.columns.keys())  # noqa: SIM118 - not a dict
    return f'COPY "{table.name}" ({columns}) FROM STDIN'


@cache
def _for_postgresql(table: Table, on_conflict: OnConflict) -> Any:
    names = table.columns.keys()
    records = func.json_populate_recordset(
        literal_column(f"NULL::{table.name}"), cast(bindparam("rows", type_=Text), JSON)
    ).table_valued(*names)
    source = select(*(records.c[name] for name in names))
    return _with_conflict(postgresql.insert(table).from_select(names, source), table, on_conflict)


def _with_conflict(statement: Any, table: Table, on_conflict: OnConflict) -> Any:
    if on_conflict == "keep":
        return statement.on_conflict_do_nothing()
    if on_conflict in ("replace", "add"):
        new = {column: statement.excluded[column.name] for column in table.c if not column.primary_key}
        values = {column.name: column + value if on_conflict == "add" else value for column, value in new.items()}
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=values)
    return statement


def _json_arrays(table: Table, rows: Rows) -> Iterator[str]:
    names = _names(table)
    binary = [name for name, value in zip(names, rows[0], strict=True) if isinstance(value, bytes)]
    items: list[bytes] = []
    size = 0
    for row in rows:
        # A column that is left out is NULL.
        values = {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for name in binary:
            values[name] = f"\\x{values[name].hex()}"
        items.append(to_json(values))
        size += len(items[-1])
        if size >= _JSON_BYTES:
            yield f"[{b','.join(items).decode()}]"
            items, size = [], 0
    if items:
        yield f"[{b','.join(items).decode()}]"
