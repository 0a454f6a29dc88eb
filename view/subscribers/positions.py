"""How far each durable catch-up subscription has read the committed history.

A position has one reader at a time, which holds its lease. Another reader takes over when the lease has run out or was
released.
"""

from datetime import timedelta
from typing import Final

from sqlalchemy import BigInteger, ColumnElement, Double, bindparam, case, delete, func, select, true

from jobtape.view import tables
from jobtape.view.sql import bulk, leases
from jobtape.view.sql.clock import NOW
from jobtape.view.sql.database import StorePart
from jobtape.view.values import NamedPosition, Subscription

SUBSCRIPTION: Final = "subscription."
"""What the names of subscriptions' positions begin with."""
MOST_BEHIND: Final = 10_000
"""Events up to which a subscription's are counted."""

_row = tables.positions
_c = tables.positions.c
_to = bindparam("to", type_=BigInteger)
_MOVE: Final = (
    leases.renew(_row, bindparam("by_owner"), bindparam("seconds", type_=Double))
    .where(_c.name == bindparam("by_name"))
    .values(cursor=bulk.greater(_c.cursor, _to), moved_at=case((_c.cursor < _to, NOW), else_=_c.moved_at))
)
"""Built once: it runs for each event of each subscription, and building it takes longer than running it."""


class Positions(StorePart):
    """Reads and writes positions."""

    def read(self, name: str) -> NamedPosition | None:
        """Return the position of that name, or None."""
        return next(iter(self._read(_c.name == name)), None)

    def all(self) -> list[NamedPosition]:
        """Return all positions, sorted by name."""
        return self._read(true())

    def subscriptions(self) -> list[Subscription]:
        """Return the durable catch-up subscriptions, sorted by name."""
        found = [each for each in self._read(true()) if each.name.startswith(SUBSCRIPTION)]
        return [Subscription(each.name.removeprefix(SUBSCRIPTION), each, self._behind(each.cursor)) for each in found]

    def begin(self, name: str, cursor: int) -> bool:
        """Create the position of that name after ``cursor``; return False, and change nothing, when there is one."""
        with self.database.writing() as connection:
            return bulk.insert_one(connection, _row, name=name, cursor=cursor, moved_at=NOW)

    def take(self, name: str, owner: str, seconds: float) -> int | None:
        """Hold the position for ``seconds``. Returns its cursor, or None when another holds it or there is none."""
        with self.database.writing() as connection:
            statement = leases.take(_row, owner, seconds).where(_c.name == name)
            return connection.execute(statement.returning(_c.cursor)).scalar()

    def move(self, name: str, owner: str, cursor: int, seconds: float) -> bool:
        """Move forward to ``cursor`` and hold the position for ``seconds``. A smaller cursor only renews the lease.

        Returns False, and changes nothing, when another holds it.
        """
        with self.database.writing() as connection:
            values = {"by_name": name, "by_owner": owner, "to": cursor, "seconds": seconds}
            return connection.execute(_MOVE, values).rowcount == 1

    def release(self, name: str, owner: str) -> None:
        """Let another reader hold the position at once. Changes nothing when another holds it already."""
        with self.database.writing() as connection:
            connection.execute(leases.release(_row, owner).where(_c.name == name))

    def forget(self, name: str) -> bool:
        """Remove the position; return False when there was none."""
        with self.database.writing() as connection:
            return connection.execute(delete(_row).where(_c.name == name)).rowcount == 1

    def _behind(self, cursor: int) -> int:
        event = tables.history.c
        later = select(event.cursor).where(event.cursor > cursor, event.accepted).limit(MOST_BEHIND)
        with self.database.reading() as connection:
            return connection.execute(select(func.count()).select_from(later.subquery())).scalar_one()

    def _read(self, condition: ColumnElement[bool]) -> list[NamedPosition]:
        idle, left = (NOW - _c.moved_at).label("idle"), (_c.lease_until - NOW).label("left")
        with self.database.reading() as connection:
            rows = connection.execute(select(_row, idle, left).where(condition).order_by(_c.name)).all()
        return [
            NamedPosition(row.name, row.cursor, row.owner if (row.left or 0) > 0 else None, timedelta(seconds=row.idle))
            for row in rows
        ]
