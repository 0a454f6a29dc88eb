"""The states of long tasks, so that another process can continue one, or see that it is finished."""

from typing import Any, Final

from sqlalchemy import delete, select, update

from jobtape.schemas import plainjson
from jobtape.view import tables
from jobtape.view.sql import bulk
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart

KEPT: Final = 7 * 86_400.0
"""Seconds for which a state is kept after its last change: longer than a finished job can be delivered again."""

_row = tables.tasks.c


class Tasks(StorePart):
    """The states, plain JSON objects, by key."""

    def begin(self, key: str, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state to continue from: ``state``, unless the task has begun before.

        Also removes states that have not changed for ``KEPT`` seconds.
        """
        with self.database.writing() as connection:
            connection.execute(delete(tables.tasks).where(_row.at < NOW - KEPT))
            bulk.insert_one(connection, tables.tasks, key=key, state=_text(state), at=NOW)
            text = connection.execute(select(_row.state).where(_row.key == key)).scalar_one()
        return dict(plainjson.loads(text.encode()))

    def move(self, key: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
        """Change the state from ``before`` to ``after``; return False, and change nothing, when it is a third one."""
        ours = update(tables.tasks).where(_row.key == key, _row.state == _text(before))
        with self.database.writing() as connection:
            return connection.execute(ours.values(state=_text(after), at=NOW)).rowcount == 1


def _text(state: dict[str, Any]) -> str:
    return plainjson.dumps(state).decode()
