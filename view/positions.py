"""How far each named reader of the committed history has come: durable catch-up subscriptions.

A position is one reader's at a time: whoever moves it holds its lease (database time), and another takes over when that
has run out or was released.
"""

from datetime import timedelta
from functools import cache

from sqlalchemy import BigInteger, Double, Update, bindparam, case, delete, select, update

from jobtape.view import tables
from jobtape.view.sql import bulk, clock, leases
from jobtape.view.sql.database import Database
from jobtape.view.values import NamedPosition

_row = tables.positions
_c = tables.positions.c


@cache
def _moving(dialect: str) -> Update:
    """Made once: it runs for each event of each named subscription, and making it costs more than running it."""
    now, to = clock.now(dialect), bindparam("to", type_=BigInteger)
    return (
        update(_row)
        .where(_c.name == bindparam("by_name"), _c.owner == bindparam("by_owner"))
        .values(
            lease_until=now + bindparam("seconds", type_=Double),
            cursor=case((_c.cursor < to, to), else_=_c.cursor),
            moved_at=case((_c.cursor < to, now), else_=_c.moved_at),
        )
    )


class Positions:
    """Reads and writes; each call is one transaction, blocks, and raises ViewUnavailable as all of the store's do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, name: str) -> NamedPosition | None:
        """The position of that name, or None when there is none."""
        return next(iter(self._read(_c.name == name)), None)

    def all(self) -> list[NamedPosition]:
        """All there are, by name."""
        return self._read(_c.name.is_not(None))

    def begin(self, name: str, cursor: int) -> bool:
        """Let there be a position of that name, behind ``cursor``; False, and nothing changes, when there is one."""
        with self._database.writing() as connection:
            now = clock.now(connection.dialect.name)
            insert = bulk.upsertable(connection.dialect.name, _row)
            statement = insert.values(name=name, cursor=cursor, moved_at=now).on_conflict_do_nothing()
            return connection.execute(statement.returning(_c.name)).first() is not None

    def take(self, name: str, owner: str, seconds: float) -> int | None:
        """Hold the position for ``seconds``: its cursor, or None while another holds it or there is none."""
        with self._database.writing() as connection:
            statement = leases.taking(connection, _row, owner, seconds).where(_c.name == name)
            taken = connection.execute(statement.returning(_c.cursor)).first()
            return None if taken is None else int(taken.cursor)

    def move(self, name: str, owner: str, cursor: int, seconds: float) -> bool:
        """Go on to ``cursor`` and hold it for ``seconds``; False, and nothing changes, when another holds it.

        Never back: a smaller cursor only renews the lease.
        """
        with self._database.writing() as connection:
            values = {"by_name": name, "by_owner": owner, "to": cursor, "seconds": seconds}
            return connection.execute(_moving(connection.dialect.name), values).rowcount == 1

    def release(self, name: str, owner: str) -> None:
        """Let another hold it at once; nothing happens when it is another's."""
        with self._database.writing() as connection:
            connection.execute(leases.releasing(_row, owner).where(_c.name == name))

    def forget(self, name: str) -> bool:
        """Remove it; False when there was none."""
        with self._database.writing() as connection:
            return connection.execute(delete(_row).where(_c.name == name)).rowcount == 1

    def _read(self, condition: object) -> list[NamedPosition]:
        with self._database.reading() as connection:
            now = clock.now(connection.dialect.name)
            rows = connection.execute(
                select(_row, (now - _c.moved_at).label("idle"), (_c.lease_until - now).label("left"))
                .where(condition)  # type: ignore[arg-type]
                .order_by(_c.name)
            ).all()
        return [
            NamedPosition(row.name, row.cursor, row.owner if (row.left or 0) > 0 else None, timedelta(seconds=row.idle))
            for row in rows
        ]
