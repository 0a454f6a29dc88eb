"""Why the fold does not go on, as the active projector notes it for readiness, metrics and ``jobtape doctor``.

The note names the cursor at which the fold stands. Once the checkpoint has moved it says nothing any more, so whatever
gets past the trouble need not remove it.
"""

from typing import Any, Final

from sqlalchemy import Connection, select

from jobtape.schemas import plainjson
from jobtape.view import checkpoint, tables
from jobtape.view.sql import bulk, clock

KEY: Final = "fold"
"""Its row among the long tasks."""
LONGEST: Final = 500
"""Characters of a note."""

_row = tables.tasks


def note(connection: Connection, owner: str, trouble: str) -> bool:
    """Note why nothing is folded from the checkpoint on; False when ``owner`` isn't active."""
    if not checkpoint.is_active(connection, owner):
        return False
    now = checkpoint.read(connection)
    assert now is not None
    # In ASCII: the note must not fail by what the fold fails by.
    text = trouble[:LONGEST].encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")
    state = plainjson.dumps({"cursor": now.cursor, "trouble": text}).decode()
    values = {"state": state, "at": clock.now(connection.dialect.name)}
    insert = bulk.upsertable(connection.dialect.name, _row).values(key=KEY, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=["key"], set_=values))
    return True


def read(connection: Connection) -> str | None:
    """Why nothing is folded from the checkpoint on; None when nothing is noted of it."""
    state = connection.execute(select(_row.c.state).where(_row.c.key == KEY)).scalar()
    if state is None:
        return None
    noted: dict[str, Any] = dict(plainjson.loads(state.encode()))
    now = checkpoint.read(connection)
    return str(noted["trouble"]) if now is not None and now.cursor == noted["cursor"] else None
