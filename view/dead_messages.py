"""Messages that came to the dead queue and are no job: kept so that somebody can look, newest first, within bounds."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, func, or_, select

from jobtape.view import tables
from jobtape.view.rows import storable
from jobtape.view.sql import bulk
from jobtape.view.values import DeadMessage

KEPT: Final = 10_000
KEPT_BYTES: Final = 256 * 1024 * 1024
"""What is kept at most; the oldest go first."""
BODY_KEPT: Final = 1024 * 1024
"""Bytes of one body; no event of ours that this broker takes is refused a look because of it."""

_row = tables.dead.c


def add(connection: Connection, messages: Sequence[DeadMessage]) -> None:
    """Keep them; one that is there already (its acknowledgement was lost) stays as it is."""
    if not messages:
        return
    insert = bulk.upsertable(connection.dialect.name, tables.dead).on_conflict_do_nothing(index_elements=["message_id"])
    connection.execute(insert, [_values(message) for message in messages])
    newest = _row.id.desc()
    ranked = select(
        _row.id,
        func.row_number().over(order_by=newest).label("n"),
        func.sum(_row.size).over(order_by=newest).label("s"),
    ).subquery()
    # ``size`` may be that of a body of which only the beginning is kept: so the bound is on the safe side.
    beyond = select(ranked.c.id).where(or_(ranked.c.n > KEPT, ranked.c.s > KEPT_BYTES), ranked.c.n > 1)
    connection.execute(delete(tables.dead).where(_row.id.in_(beyond)))


def page(connection: Connection, before: int | None, limit: int) -> list[DeadMessage]:
    """The newest ones whose number is smaller than ``before``."""
    statement = select(tables.dead).order_by(_row.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(_row.id < before)
    return [_message(row) for row in connection.execute(statement).all()]


def one(connection: Connection, number: int) -> DeadMessage | None:
    """The message of that number."""
    row = connection.execute(select(tables.dead).where(_row.id == number)).first()
    return None if row is None else _message(row)


def count(connection: Connection) -> int:
    """How many there are."""
    return connection.execute(select(func.count()).select_from(tables.dead)).scalar_one()


def _values(message: DeadMessage) -> dict[str, Any]:
    return {
        "message_id": storable(message.message_id),
        "at": message.at,
        "reason": storable(message.reason),
        "size": message.size,
        "body": message.body[:BODY_KEPT],
    }


def _message(row: Any) -> DeadMessage:
    return DeadMessage(row.message_id, row.at, row.reason, bytes(row.body), row.size, row.id)
