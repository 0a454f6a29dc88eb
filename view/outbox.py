"""The outbox: effects that are not on the tape yet, as far as it is folded."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, select, update

from jobtape.schemas import ids
from jobtape.view import checkpoint, dead_messages, tables
from jobtape.view.sql import bulk, clock
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart
from jobtape.view.values import DeadMessage, OutboxRow

_row = tables.outbox.c
_event = tables.history.c
_DELETE: Final = delete(tables.outbox).where(_row.id == bindparam("effect"))
_DEFER: Final = (
    update(tables.outbox)
    .where(_row.id == bindparam("effect"))
    .values(due=NOW + bindparam("seconds"), tries=_row.tries + 1)
)


class Outbox(StorePart):
    """Reads and writes effects."""

    def due(self, limit: int) -> list[OutboxRow]:
        """Return effects that may be published now. Those that were deferred come last."""
        ready = select(tables.outbox).where(_row.due <= NOW).order_by(_row.due, _row.id).limit(limit)
        with self.database.reading() as connection:
            rows = connection.execute(ready).all()
        return [OutboxRow(row.id, row.event, tuple(row.keys.split()), row.tries) for row in rows]

    def count(self) -> int:
        """Return how many effects are in the outbox."""
        with self.database.reading() as connection:
            return connection.execute(select(func.count()).select_from(tables.outbox)).scalar_one()

    def add(self, owner: str, effects: Sequence[OutboxRow], dead: Sequence[DeadMessage] = ()) -> bool:
        """Add effects and dead messages in one transaction, without the effects that the tape has already.

        Returns False, and writes nothing, when ``owner`` is not the active projector.
        """
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            seen = select(_event.event_id).where(
                _event.job_id.in_({ids.job_of(each.id) for each in effects}),
                _event.event_id.in_({each.id for each in effects}),
            )
            published = set(connection.execute(seen).scalars()) if effects else ()
            add(connection, [each for each in effects if each.id not in published])
            dead_messages.add(connection, dead)
            return True

    def defer(self, seconds: dict[str, float]) -> None:
        """Count a failed try of each effect, given by id, and make it due again after so many seconds."""
        if seconds:
            with self.database.writing() as connection:
                connection.execute(_DEFER, [{"effect": each, "seconds": wait} for each, wait in seconds.items()])


def add(connection: Connection, effects: Sequence[OutboxRow]) -> None:
    """Add effects. One that is there already stays as it is."""
    now = clock.read(connection) if any(each.wait for each in effects) else 0.0
    rows = [
        {
            "id": each.id,
            "due": now + each.wait if each.wait else 0.0,
            "tries": each.tries,
            "keys": " ".join(each.keys),
            "event": each.event,
        }
        for each in effects
    ]
    bulk.insert(connection, tables.outbox, rows, on_conflict="keep")


def remove(connection: Connection, effects: Collection[str]) -> None:
    """Remove the effects of these ids: they are on the tape."""
    if effects:
        connection.execute(_DELETE, [{"effect": each} for each in effects])
