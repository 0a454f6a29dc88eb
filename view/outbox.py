"""Effects that wait to be published, and what became of them. All want a transaction that may write, but ``due``."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, select, update

from jobtape.schemas import ids
from jobtape.view import tables
from jobtape.view.sql import bulk, clock
from jobtape.view.values import OutboxRow

_row = tables.outbox.c
_event = tables.history.c
_DELETE: Final = delete(tables.outbox).where(_row.id == bindparam("effect"))


def add(connection: Connection, effects: Sequence[OutboxRow]) -> None:
    """Let them be published; one that waits already stays as it is."""
    now = 0.0
    if any(each.wait for each in effects):
        now = float(connection.execute(select(clock.now(connection.dialect.name))).scalar_one())
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


def add_new(connection: Connection, effects: Sequence[OutboxRow]) -> None:
    """The same for those that are not on the tape as far as it is folded: who found them may have looked before."""
    if effects:
        seen = select(_event.event_id).where(
            _event.job_id.in_({ids.job_of(each.id) for each in effects}),
            _event.event_id.in_({each.id for each in effects}),
        )
        delivered = set(connection.execute(seen).scalars())
        add(connection, [each for each in effects if each.id not in delivered])


def remove(connection: Connection, effects: Collection[str]) -> None:
    """They are on the tape."""
    if effects:
        connection.execute(_DELETE, [{"effect": each} for each in effects])


def due(connection: Connection, limit: int) -> list[OutboxRow]:
    """Those that may be published now, those that were put off last."""
    ready = select(tables.outbox).where(_row.due <= clock.now(connection.dialect.name))
    rows = connection.execute(ready.order_by(_row.due, _row.id).limit(limit)).all()
    return [OutboxRow(row.id, row.event, tuple(row.keys.split()), row.tries) for row in rows]


def put_off(connection: Connection, seconds: dict[str, float]) -> None:
    """Count a try of each, and let it be due again after so many seconds."""
    if not seconds:
        return
    later = clock.now(connection.dialect.name) + bindparam("seconds")
    statement = update(tables.outbox).where(_row.id == bindparam("effect")).values(due=later, tries=_row.tries + 1)
    connection.execute(statement, [{"effect": each, "seconds": wait} for each, wait in seconds.items()])


def newest_events(connection: Connection, limit: int) -> list[str]:
    """The events of those that wait, those that are due last first."""
    statement = select(_row.event).order_by(_row.due.desc(), _row.id).limit(limit)
    return list(connection.execute(statement).scalars())


def waiting(connection: Connection) -> int:
    """How many there are."""
    return connection.execute(select(func.count()).select_from(tables.outbox)).scalar_one()
