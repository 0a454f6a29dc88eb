"""How far each long task has come, for a process that takes it up again, also when it is done already."""

from typing import Any, Final

from sqlalchemy import delete, select, update

from jobtape.schemas import plainjson
from jobtape.view import tables
from jobtape.view.sql import bulk, clock
from jobtape.view.sql.database import Database

KEPT: Final = 7 * 86_400.0
"""Seconds after its last change for which a state is kept: longer than what is done is delivered again."""

_row = tables.tasks.c


class Tasks:
    """States by key, plain JSON each; every call is one transaction, and blocks, and raises ViewUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, key: str) -> dict[str, Any] | None:
        """The state, or None when the task was never begun, or that was long ago."""
        with self._database.reading() as connection:
            text = connection.execute(select(_row.state).where(_row.key == key)).scalar()
        return None if text is None else dict(plainjson.loads(text.encode()))

    def begin(self, key: str, state: dict[str, Any]) -> dict[str, Any]:
        """The state to go on from: ``state``, unless the task was begun before. What nobody has touched for ``KEPT`` is
        forgotten.
        """
        with self._database.writing() as connection:
            now = clock.now(connection.dialect.name)
            connection.execute(delete(tables.tasks).where(_row.at < now - KEPT))
            insert = bulk.upsertable(connection.dialect.name, tables.tasks)
            connection.execute(insert.values(key=key, state=_text(state), at=now).on_conflict_do_nothing())
            text = connection.execute(select(_row.state).where(_row.key == key)).scalar_one()
        return dict(plainjson.loads(text.encode()))

    def move(self, key: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
        """Let the state be ``after``; False, and nothing changes, when it is not ``before`` any more."""
        with self._database.writing() as connection:
            ours = update(tables.tasks).where(_row.key == key, _row.state == _text(before))
            changes = {"state": _text(after), "at": clock.now(connection.dialect.name)}
            return connection.execute(ours.values(changes)).rowcount == 1


def _text(state: dict[str, Any]) -> str:
    return plainjson.dumps(state).decode()
