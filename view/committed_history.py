"""The committed history as those who listen read it: what the fold accepted, in the tape's order, behind a cursor.

The projector commits batch after batch, each behind the last, so a page that ends at the newest row has missed nothing:
whatever is committed later stands behind it. Hence a reader needs no more than its cursor to go on, anywhere.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from jobtape.schemas.selection import Selection
from jobtape.view import tables
from jobtape.view.committed_event import CommittedEvent, CommittedPage
from jobtape.view.sql.database import Database
from jobtape.view.values import HistoryRange

_checkpoint = tables.checkpoint.c
_entry = tables.history.c

DISORDER: Final = timedelta(hours=1)
"""By how much the times of neighbours on the tape may differ: clocks do, and a publish may wait for its broker."""
_WINDOW: Final = 64
_STRETCH: Final = 5000
_REACH = select(_checkpoint.epoch, _checkpoint.offset, _checkpoint.horizon)

PAGE_BYTES: Final = 8 * 1024 * 1024
STEP: Final = 50
"""Rows fetched at a time: an event may be as large as its job's payload, so many at once would be anything."""


class CommittedHistory:
    """Reads; each call blocks, and raises ViewUnavailable as all of the store's do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reach(self) -> HistoryRange:
        """From where to where the history goes now: one row, so it may be asked many times a second."""
        with self._database.reading() as connection:
            row = connection.execute(_REACH).first()
        return HistoryRange() if row is None else HistoryRange.of(row.epoch, row.offset, row.horizon)

    def page(self, after: int, limit: int, wanted: Selection, max_bytes: int = PAGE_BYTES) -> CommittedPage:
        """The wanted among the next ``limit`` accepted events behind the cursor ``after``; fewer when their events, in
        characters, come to more than ``max_bytes``.
        """
        with self._database.reading() as connection:
            return _page(connection, after, limit, wanted, max_bytes)

    def before(self, time: datetime) -> int:
        """A cursor: the first accepted event behind it is the first at ``time`` or later, in the tape's order. 0 when
        that is the first there is.

        Times are no order: events of an earlier time may stand behind it, and none of a later time before it unless it
        came to the tape more than an hour (``DISORDER``) before its own time, or its neighbours an hour late.
        """
        head = self.reach().head
        after = self._bisect(time - DISORDER, head)
        while True:
            rows = self._times(after, _STRETCH)
            for cursor, at in rows:
                if at >= time:
                    return after
                after = cursor
            if len(rows) < _STRETCH:
                return max(after, head)

    def _bisect(self, time: datetime, head: int) -> int:
        low, high = 0, head
        while high - low > _STRETCH:
            middle = (low + high) // 2
            window = self._times(middle, _WINDOW)
            if window and all(at < time for _, at in window):
                low = middle
            else:
                high = middle
        return low

    def _times(self, after: int, limit: int) -> list[tuple[int, datetime]]:
        statement = select(_entry.cursor, _entry.time).where(_entry.cursor > after, _entry.accepted)
        with self._database.reading() as connection:
            rows = connection.execute(statement.order_by(_entry.cursor).limit(limit)).all()
        return [(row.cursor, row.time) for row in rows]


def _page(connection: Connection, after: int, limit: int, wanted: Selection, max_bytes: int) -> CommittedPage:
    statement = select(tables.history).where(_entry.accepted).order_by(_entry.cursor)
    if wanted.job is not None:
        statement = statement.where(_entry.job_id == wanted.job)
    rows: list[Row[Any]] = []
    size, full = 0, True
    while full and len(rows) < limit and size < max_bytes:
        step = min(STEP, limit - len(rows))
        behind = rows[-1].cursor if rows else after
        found = connection.execute(statement.where(_entry.cursor > behind).limit(step)).all()
        full = len(found) == step
        for row in found:
            if size >= max_bytes:
                full = True
                break
            rows.append(row)
            size += len(row.event)
    accepted = [
        CommittedEvent(row.cursor, row.job_id, row.event_id, row.name, row.time, row.event, row.after) for row in rows
    ]
    return CommittedPage(
        rows=[row for row in accepted if row.wanted_by(wanted)],
        cursor=rows[-1].cursor if rows else after,
        full=full,
    )
