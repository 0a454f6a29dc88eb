"""The one row that says how far the relay has published the committed history.

Only the relay of the active projector moves it, and only forward. It is no part of the fold: a rebuild does not change
what was published.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, case, delete, select, update

from jobtape.schemas.events import RELAYED_EVENTS, RelayMode
from jobtape.view import checkpoint, tables
from jobtape.view.rows import storable
from jobtape.view.sql import bulk, clock
from jobtape.view.sql.database import StorePart
from jobtape.view.values import RelayState

_row = tables.relay
_c = tables.relay.c
_entry = tables.history.c


class RelayRow(StorePart):
    """Reads and writes the row. Writes return False or None, and write nothing, unless ``owner`` is active."""

    def state(self) -> RelayState | None:
        """Return the state of the relay; None when it has not begun or is off."""
        with self.database.reading() as connection:
            row = connection.execute(select(_row)).first()
            if row is None:
                return None
            oldest = _oldest_unpublished(connection, row.mode, row.cursor)
            now = clock.read(connection)
        behind = 0.0 if oldest is None else max(0.0, (datetime.fromtimestamp(now, UTC) - oldest).total_seconds())
        return RelayState(row.mode, row.cursor, row.delivered, row.refused, row.stalls, row.fault, behind)

    def begin(self, owner: str, cursor: int) -> bool:
        """Let the relay begin after ``cursor``. Changes nothing when it has begun."""
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            bulk.insert_one(connection, _row, id=1, cursor=cursor)
            return True

    def take_up(self, owner: str, mode: RelayMode) -> int | None:
        """Write which events are published from now on; return the cursor to continue after, None before ``begin``."""
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return None
            return connection.execute(update(_row).values(mode=mode).returning(_c.cursor)).scalar()

    def move(self, owner: str, cursor: int, delivered: int, refused: int, fault: str | None) -> bool:
        """Note that the events up to ``cursor`` are finished.

        ``delivered`` and ``refused``: how many more events were confirmed and refused. ``fault``: why the relay is
        stalled there, or None.
        """
        moved = update(_row).where(_c.cursor <= cursor)
        moved = moved.values(cursor=cursor, delivered=_c.delivered + delivered, refused=_c.refused + refused)
        if fault is None:
            moved = moved.values(fault=None)
        else:
            stalls = _c.stalls + case((_c.fault.is_(None), 1), else_=0)
            moved = moved.values(stalls=stalls, fault=storable(fault))
        return self._write(owner, moved)

    def forget(self, owner: str) -> bool:
        """Remove the row, since the relay is off. Later it starts at the checkpoint of that time."""
        return self._write(owner, delete(_row))

    def _write(self, owner: str, statement: Any) -> bool:
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            connection.execute(statement)
            return True


def _oldest_unpublished(connection: Connection, mode: RelayMode, cursor: int) -> datetime | None:
    """Return the time of the event to publish next. Reads few rows, since the relay moves past the other events."""
    unpublished = select(_entry.time).where(
        _entry.cursor > cursor, _entry.accepted, _entry.name.in_(sorted(RELAYED_EVENTS[mode]))
    )
    return connection.execute(unpublished.order_by(_entry.cursor).limit(1)).scalar()
