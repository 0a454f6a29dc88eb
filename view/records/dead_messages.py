"""Messages of the dead queue that are no job. They are kept for people to read, the newest ones, within limits."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, func, or_, select

from jobtape.view import checkpoint, tables
from jobtape.view.rows import storable
from jobtape.view.sql import bulk
from jobtape.view.sql.database import StorePart
from jobtape.view.values import DeadMessage

KEPT: Final = 10_000
KEPT_BYTES: Final = 256 * 1024 * 1024
"""The limits; the oldest messages are removed first."""
BODY_KEPT: Final = 1024 * 1024
"""Bytes of one body. Every event of ours that the broker accepts is smaller."""

_row = tables.dead.c


class DeadMessages(StorePart):
    """Reads and adds the messages."""

    def page(self, before: int | None = None, limit: int = 100) -> list[DeadMessage]:
        """Return the newest messages whose id is smaller than ``before``, the newest first."""
        statement = select(tables.dead).order_by(_row.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(_row.id < before)
        with self.database.reading() as connection:
            return [_message(row) for row in connection.execute(statement).all()]

    def get(self, number: int) -> DeadMessage | None:
        """Return the message of that id, or None."""
        with self.database.reading() as connection:
            row = connection.execute(select(tables.dead).where(_row.id == number)).first()
        return None if row is None else _message(row)

    def count(self) -> int:
        """Return how many messages are kept."""
        with self.database.reading() as connection:
            return connection.execute(select(func.count()).select_from(tables.dead)).scalar_one()

    def add(self, owner: str, messages: Sequence[DeadMessage]) -> bool:
        """Keep messages. One that is kept already (its acknowledgement was lost) stays as it is.

        Returns False, and writes nothing, when ``owner`` is not the active projector.
        """
        with self.database.writing() as connection:
            if not checkpoint.is_active(connection, owner):
                return False
            _add(connection, messages)
            return True


def _add(connection: Connection, messages: Sequence[DeadMessage]) -> None:
    insert = bulk.upsert(connection.dialect.name, tables.dead).on_conflict_do_nothing(index_elements=["message_id"])
    connection.execute(insert, [_values(message) for message in messages])
    newest = _row.id.desc()
    ranked = select(
        _row.id,
        func.row_number().over(order_by=newest).label("n"),
        func.sum(_row.size).over(order_by=newest).label("s"),
    ).subquery()
    # ``size`` is that of the whole body, also where only its beginning is kept: less than the limit is kept then.
    beyond = select(ranked.c.id).where(or_(ranked.c.n > KEPT, ranked.c.s > KEPT_BYTES), ranked.c.n > 1)
    connection.execute(delete(tables.dead).where(_row.id.in_(beyond)))


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
