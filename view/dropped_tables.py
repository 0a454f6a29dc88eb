"""Tables that serve no more, removed in pieces so that nobody waits for it.

SQLite has one writer, and to drop a large table it looks at each of its pages: a million events took 16 s. PostgreSQL
drops a table at once.
"""

from typing import Final

from sqlalchemy import Connection, Table, inspect, text

from jobtape.view import tables
from jobtape.view.tables import Folded

CHUNK: Final = 2_000
"""Rows in one transaction."""


def retire(connection: Connection, folded: Folded) -> None:
    """Let the tables have names that nobody asks for, until ``clear_some`` has removed them."""
    _drop_all(connection)
    for table, serving in zip(folded.each(), tables.SERVING.each(), strict=True):
        rename(connection, table.name, _retired(serving))


def rename(connection: Connection, name: str, into: str) -> None:
    """Give a table another name."""
    connection.execute(text(f"ALTER TABLE {name} RENAME TO {into}"))


def clear_some(connection: Connection) -> bool:
    """Remove a piece of what is there; False when nothing was."""
    present = set(inspect(connection).get_table_names())
    table = next((each for each in tables.SERVING.each() if _retired(each) in present), None)
    if table is None:
        return False
    name = _retired(table)
    if connection.dialect.name == "sqlite":
        own = text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = :name AND sql IS NOT NULL")
        index = connection.execute(own, {"name": name}).scalar()
        if index is not None:
            connection.execute(text(f"DROP INDEX {index}"))
            return True
        key = ", ".join(column.name for column in table.primary_key)
        some = f"SELECT {key} FROM {name} LIMIT {CHUNK}"  # noqa: S608 - all names are ours
        if connection.execute(text(f"DELETE FROM {name} WHERE ({key}) IN ({some})")).rowcount:  # noqa: S608
            return True
    connection.execute(text(f"DROP TABLE {name}"))
    return True


def _drop_all(connection: Connection) -> None:
    # As a rule there are none: what is found here was left by a process that died.
    for table in tables.SERVING.each():
        connection.execute(text(f"DROP TABLE IF EXISTS {_retired(table)}"))


def _retired(table: Table) -> str:
    return f"{table.name}_retired"
