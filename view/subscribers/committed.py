"""The committed history for listeners: the events that the fold accepted, in the order of the tape, after a cursor.

The projector commits batches in order. So a page that ends at the newest row is complete: everything that is committed
later comes after it. A reader needs only its cursor to continue, in any process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from sqlalchemy import bindparam, select, true

from jobtape.schemas import plainjson
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.job import JobState
from jobtape.schemas.messages.delivered_event import encode_delivered
from jobtape.view import tables
from jobtape.view.sql.database import StorePart
from jobtape.view.sql.paging import PAGE_BYTES, read_page
from jobtape.view.values import HistoryRange, id_of

_checkpoint = tables.checkpoint.c
_entry = tables.history.c
_job = tables.jobs.c
_ACCEPTED: Final = (
    select(_entry.cursor, _entry.job_id, _entry.name, _entry.time, _entry.event, _entry.state)
    .add_columns(_job.type, _job.correlation_id, _job.reply_to, _job.labels, _job.traceparent)
    .select_from(tables.history.join(tables.jobs, _job.id == _entry.job_id))
    .where(_entry.accepted)
    .order_by(_entry.cursor)
)
_NEXT: Final = _ACCEPTED.where(_entry.cursor > bindparam("after")).limit(bindparam("count")).subquery()
NEWEST: Final = (
    select(_checkpoint.epoch, _checkpoint.offset, _checkpoint.horizon, *_NEXT.c)
    .select_from(tables.checkpoint.outerjoin(_NEXT, true()))
    .order_by(_NEXT.c.cursor)
)
"""The range of the history and the next events in one statement, so that they are of one moment. ``newest_from_rows``
reads the rows."""
_TIMES: Final = select(_entry.cursor, _entry.time).where(_entry.accepted).order_by(_entry.cursor)
_REACH: Final = select(_checkpoint.epoch, _checkpoint.offset, _checkpoint.horizon)

DISORDER: Final = timedelta(hours=1)
"""By how much the times of neighbours on the tape may differ: clocks differ, and a publish may wait for the broker."""
_WINDOW: Final = 64
_STRETCH: Final = 5000


@dataclass(frozen=True, eq=False)  # without slots, because of the cached property
class CommittedEvent:
    """An event that changed its job. ``event``: the CloudEvent as it was read. ``state``: of the job after the event.

    The other fields are those of the job's submission, which never change: None and ``{}`` until it is folded.
    """

    cursor: int
    job_id: str
    name: str
    time: datetime
    event: str
    state: JobState
    job_type: str
    correlation_id: str | None
    reply_to: str | None
    labels: Mapping[str, str]
    job_traceparent: str | None = None

    @property
    def event_id(self) -> str:
        """The id of the event, which is parsed for it."""
        return id_of(self.event)

    @property
    def traceparent(self) -> str | None:
        """The trace context of the event, which is parsed for it, or that of the submission."""
        if '"traceparent"' not in self.event:
            return self.job_traceparent
        found: str | None = plainjson.loads(self.event.encode()).get("traceparent")
        return found or self.job_traceparent

    @cached_property
    def delivered(self) -> bytes:
        """The JSON that subscribers get: the CloudEvent with its cursor. It is made once for all listeners."""
        return encode_delivered(self.event, self.cursor, self.job_traceparent)

    @property
    def imported(self) -> bool:
        """Whether it was imported from another tape."""
        # The text says at once for nearly every event that it was not.
        return '"imported"' in self.event and plainjson.loads(self.event.encode()).get("imported") is not None

    def wanted_by(self, selection: Selection) -> bool:
        """Return whether it passes the filter."""
        return selection.fits(self.name, self.job_id, self.job_type, self.correlation_id, self.labels)


@dataclass(frozen=True, slots=True)
class CommittedPage:
    """The selected ``rows`` of a part of the history, and the ``cursor`` to continue after.

    ``full``: more events may be there already.
    """

    rows: Sequence[CommittedEvent]
    cursor: int
    full: bool


class CommittedHistory(StorePart):
    """Reads the committed history."""

    def reach(self) -> HistoryRange:
        """Return the range of the history. Reads one row, so it may be called many times a second."""
        with self.database.reading() as connection:
            row = connection.execute(_REACH).first()
        return HistoryRange() if row is None else _range(*row)

    def newest(self, after: int, limit: int) -> tuple[HistoryRange, Sequence[CommittedEvent]]:
        """Return the range of the history, and the next ``limit`` accepted events after the cursor ``after``.

        It costs a fifth of ``reach`` and ``page`` together. Fewer events than ``limit`` are all up to the head of the
        range.
        """
        with self.database.by_driver("read") as connection:
            rows = connection.select(NEWEST, {"after": after, "count": limit})
        return newest_from_rows(rows)

    def page(self, after: int, limit: int, wanted: Selection, max_bytes: int = PAGE_BYTES) -> CommittedPage:
        """Read the next ``limit`` accepted events after the cursor ``after`` and return the wanted ones of them.

        Reads fewer events when together they reach ``max_bytes`` characters.
        """
        statement = _ACCEPTED if wanted.job is None else _ACCEPTED.where(_entry.job_id == wanted.job)
        with self.database.reading() as connection:

            def fetch(last: int, count: int) -> Sequence[Any]:
                return connection.execute(statement.where(_entry.cursor > last).limit(count)).all()

            rows, full = read_page(fetch, after, limit, lambda row: len(row.event), max_bytes)
        events = [_event(row) for row in rows]
        return CommittedPage(
            rows=[event for event in events if event.wanted_by(wanted)],
            cursor=rows[-1].cursor if rows else after,
            full=full,
        )

    def before(self, time: datetime) -> int:
        """Return a cursor. The first accepted event after it is the first on the tape whose time is not before
        ``time``; 0 when that is the first event.

        Times on the tape are not sorted. Earlier events may follow after the cursor. A later event can only be before
        it when it, or its neighbours, came to the tape with a time that is wrong by more than ``DISORDER``.
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
        with self.database.reading() as connection:
            rows = connection.execute(_TIMES.where(_entry.cursor > after).limit(limit)).all()
        return [(row.cursor, row.time) for row in rows]


def newest_from_rows(rows: Sequence[Sequence[Any]]) -> tuple[HistoryRange, Sequence[CommittedEvent]]:
    """Return what ``CommittedHistory.newest`` does, from the rows of ``NEWEST``."""
    if not rows:
        return HistoryRange(), []
    return _range(*rows[0][:3]), [_event(row[3:]) for row in rows if row[3] is not None]


def _range(epoch: int, offset: int | None, horizon: int) -> HistoryRange:
    return HistoryRange(horizon, max(cursor_of(epoch, -1 if offset is None else offset), horizon))


def _event(row: Any) -> CommittedEvent:
    cursor, job_id, name, time, event, state, job_type, correlation_id, reply_to, labels, context = row
    given = {} if labels in (None, "{}") else plainjson.loads(labels.encode())
    of_submission = (job_type, correlation_id, reply_to, given, context)
    return CommittedEvent(cursor, job_id, name, time, event, JobState(state), *of_submission)
