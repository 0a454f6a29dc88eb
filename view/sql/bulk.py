"""Many rows into one table, in the form that was fastest on each database when measured.

SQLite: one prepared statement for many tuples, past SQLAlchemy's work on each parameter. PostgreSQL: one statement
whose only parameter is the rows as a JSON array (ahead of a pipeline of inserts, of many VALUES, and of unnest).

Rows are dictionaries with every column of the table: strings, numbers, booleans and None, times as ISO 8601 text.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final, Literal

from pydantic_core import to_json
from sqlalchemy import JSON, Connection, Table, Text, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

OnConflict = Literal["fail", "keep", "replace"]
Rows = Sequence[Mapping[str, Any]]

_JSON_BYTES: Final = 4_000_000  # in one statement: enough to be fast, and little beside the server's limit of 1 GB


def insert(connection: Connection, table: Table, rows: Rows, on_conflict: OnConflict = "fail") -> None:
    """Add rows. A row whose key is there already raises IntegrityError, is left as it is, or is replaced."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        statement, names = _for_sqlite(table, on_conflict)
        connection.exec_driver_sql(statement, list(map(itemgetter(*names), rows)))
        return
    for array in _json_arrays(rows):
        connection.execute(_for_postgresql(table, on_conflict), {"rows": array})


def upsertable(dialect: str, table: Table) -> Any:
    """The dialect's own insert. The two have the same ``on_conflict_…`` methods, but no common base with them."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def _for_sqlite(table: Table, on_conflict: OnConflict) -> tuple[str, tuple[str, ...]]:
    """The statement's text, and the columns in the order of its parameters."""
    compiled = _with_conflict(upsertable("sqlite", table), table, on_conflict).compile(
        dialect=sqlite.dialect(paramstyle="qmark"),
    )
    return str(compiled), tuple(compiled.positiontup)


@cache
def _for_postgresql(table: Table, on_conflict: OnConflict) -> Any:
    names = table.columns.keys()
    records = func.json_populate_recordset(
        literal_column(f"NULL::{table.name}"), cast(bindparam("rows", type_=Text), JSON)
    ).table_valued(*names)
    source = select(*(records.c[name] for name in names))
    return _with_conflict(upsertable("postgresql", table).from_select(names, source), table, on_conflict)


def _with_conflict(statement: Any, table: Table, on_conflict: OnConflict) -> Any:
    if on_conflict == "keep":
        return statement.on_conflict_do_nothing()
    if on_conflict == "replace":
        key = [column.name for column in table.primary_key]
        values = {column.name: statement.excluded[column.name] for column in table.c if not column.primary_key}
        return statement.on_conflict_do_update(index_elements=key, set_=values)
    return statement


def _json_arrays(rows: Rows) -> Iterator[str]:
    waiting: list[bytes] = []
    size = 0
    for row in rows:
        waiting.append(to_json(row))
        size += len(waiting[-1])
        if size >= _JSON_BYTES:
            yield _array(waiting)
            waiting, size = [], 0
    if waiting:
        yield _array(waiting)


def _array(items: Sequence[bytes]) -> str:
    return f"[{b','.join(items).decode()}]"
