"""The one row that says how far the relay has published the committed history, and how that went.

Only the active projector's relay moves it, and never back. It is no part of the fold: folding the tape again does not
change what was published.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, case, delete, select, update

from jobtape.schemas.relay_events import RELAYED_EVENTS, RelayMode
from jobtape.view import checkpoint, tables
from jobtape.view.rows import storable
from jobtape.view.sql import bulk, clock
from jobtape.view.sql.database import Database
from jobtape.view.values import RelayState

_row = tables.relay
_c = tables.relay.c
_entry = tables.history.c
_FRESH: Final = 0


def begin_with_tape(connection: Connection) -> None:
    """Let the relay begin at the beginning; nothing happens where it has begun. Wants a transaction that may write."""
    _insert(connection, _FRESH)


class RelayRow:
    """Reads and writes; each call is one transaction, blocks, and raises ViewUnavailable as all of the store's do.

    ``owner``: what writes returns False and writes nothing, unless it is the active projector.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> RelayState | None:
        """How it stands; None where no relay has begun, or it is off."""
        with self._database.reading() as connection:
            row = connection.execute(select(_row)).first()
            if row is None:
                return None
            oldest = _oldest_untold(connection, row.mode, row.cursor)
            now = connection.execute(select(clock.now(connection.dialect.name))).scalar_one()
        behind = 0.0 if oldest is None else max(0.0, (datetime.fromtimestamp(now, UTC) - oldest).total_seconds())
        return RelayState(row.mode, row.cursor, row.delivered, row.refused, row.stalls, row.trouble, behind)

    def begin(self, owner: str, cursor: int) -> bool:
        """Let the relay begin behind ``cursor``; nothing happens where it has begun."""
        with self._database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            _insert(connection, cursor)
            return True

    def take_up(self, owner: str, mode: RelayMode) -> int | None:
        """Note from where on is published: the cursor behind which it goes on, or None where no relay has begun."""
        with self._database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return None
            taken = connection.execute(update(_row).values(mode=mode).returning(_c.cursor)).first()
            return None if taken is None else int(taken.cursor)

    def move(self, owner: str, cursor: int, delivered: int, refused: int, trouble: str | None) -> bool:
        """Note that all up to ``cursor`` is done: ``delivered`` more events were confirmed, ``refused`` more refused.

        ``trouble``: why the relay is stalled there, or None.
        """
        moved = update(_row).where(_c.cursor <= cursor)
        moved = moved.values(
            cursor=cursor, delivered=_c.delivered + delivered, refused=_c.refused + refused, trouble=None
        )
        if trouble is not None:
            newly = case((_c.trouble.is_(None), 1), else_=0)
            moved = moved.values(stalls=_c.stalls + newly, trouble=storable(trouble))
        with self._database.writing() as connection:
            return _change(connection, owner, moved)

    def forget(self, owner: str) -> bool:
        """There is no relay: one that is turned on later starts again."""
        with self._database.writing() as connection:
            return _change(connection, owner, delete(_row))


def _insert(connection: Connection, cursor: int) -> None:
    insert = bulk.upsertable(connection.dialect.name, _row)
    connection.execute(insert.values(id=1, cursor=cursor).on_conflict_do_nothing())


def _change(connection: Connection, owner: str, statement: Any) -> bool:
    if not checkpoint.is_active(connection, owner):
        return False
    connection.execute(statement)
    return True


def _oldest_untold(connection: Connection, mode: RelayMode, cursor: int) -> datetime | None:
    """When the event was published that comes next; few rows are looked at, as the relay passes over the others."""
    undelivered = select(_entry.time).where(
        _entry.cursor > cursor, _entry.accepted, _entry.name.in_(sorted(RELAYED_EVENTS[mode]))
    )
    return connection.execute(undelivered.order_by(_entry.cursor).limit(1)).scalar()
