"""The committed history as those who listen read it: what the fold accepted, in the tape's order, behind a cursor.

The projector commits batch after batch, each behind the last, so a page that ends at the newest row has missed nothing:
whatever is committed later stands behind it. Hence a reader needs no more than its cursor to go on, anywhere.
"""

from sqlalchemy import Connection, select

from jobtape.schemas.selection import Selection
from jobtape.view import tables
from jobtape.view.database import Database
from jobtape.view.rows import history_from_row
from jobtape.view.values import Page, Reach

_checkpoint = tables.checkpoint.c
_entry = tables.history.c
_REACH = select(_checkpoint.epoch, _checkpoint.offset, _checkpoint.horizon)


class Committed:
    """Reads; each call blocks, and raises ViewUnavailable as all of the store's do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reach(self) -> Reach:
        """From where to where the history goes now: one row, so it may be asked many times a second."""
        with self._database.reading() as connection:
            row = connection.execute(_REACH).first()
        return Reach() if row is None else Reach.of(row.epoch, row.offset, row.horizon)

    def page(self, after: int, limit: int, wanted: Selection) -> Page:
        """The wanted among the next ``limit`` accepted events behind the cursor ``after``."""
        with self._database.reading() as connection:
            return _page(connection, after, limit, wanted)


def _page(connection: Connection, after: int, limit: int, wanted: Selection) -> Page:
    statement = select(tables.history).where(_entry.cursor > after, _entry.accepted).order_by(_entry.cursor)
    if wanted.job is not None:
        statement = statement.where(_entry.job_id == wanted.job)
    rows = connection.execute(statement.limit(limit)).all()
    found = [history_from_row(row) for row in rows if wanted.wants_event(row.name)]
    return Page(
        rows=[row for row in found if wanted.wants(row.name, row.after)],
        cursor=rows[-1].cursor if rows else after,
        full=len(rows) == limit,
    )
