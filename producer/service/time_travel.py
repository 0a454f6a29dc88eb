"""Finds the cursor of an earlier point of the tape, which is given as a cursor or a time."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from jobtape.producer.service.errors import PointGone, PointNotReached
from jobtape.producer.service.ids import utc_now
from jobtape.producer.service.view_calls import ViewCalls
from jobtape.view.store import Position, Store


class TimeTravel:
    """``catch_up`` waits until the view has read everything that is on the tape by now. All calls raise ViewUnavailable
    when the database does not answer.
    """

    def __init__(self, store: Store, reads: ViewCalls, catch_up: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._reads = reads
        self._catch_up = catch_up

    async def cursor(self, point: int | datetime) -> int:
        """Return the cursor for ``point``, a cursor or a time. The view's history up to there is complete.

        Raises PointGone before the horizon, and PointNotReached after the end. For a time later than all known events
        it also raises ViewBehind, TapeMissing and BrokerUnavailable, because the view must catch up first.
        """
        cursor = await self._cursor_at(point) if isinstance(point, datetime) else point
        reach = await self._reads.call(self._store.committed.reach)
        if cursor < reach.horizon:
            raise PointGone(
                f"what was at {_named(point)} is not known: the history is complete from cursor {reach.horizon} on; "
                f"ask for that or a later point"
            )
        if cursor > reach.head:
            raise PointNotReached(
                f"the view has read the tape up to cursor {reach.head}: take a cursor from an event or a job"
            )
        return cursor

    async def time(self, point: int | datetime) -> datetime:
        """Return the time for ``point``: for a cursor, that of the last event up to it.

        Raises PointGone before the horizon, and PointNotReached after the end.
        """
        if isinstance(point, datetime):
            return point
        return await self._reads.call(self._store.past.time_at, await self.cursor(point)) or utc_now()

    async def positions(self, number: int) -> list[Position]:
        """Return at most ``number`` events that divide the complete history evenly; see ``PastView.positions``."""
        reach = await self._reads.call(self._store.committed.reach)
        return await self._reads.call(self._store.past.positions, number, reach.horizon)

    async def _cursor_at(self, time: datetime) -> int:
        if time > (now := utc_now()):
            raise PointNotReached(f"{time.isoformat()} is in the future: here it is {now.isoformat()}")
        cursor, last = await self._reads.call(self._store.past.cursor_at, time)
        if last:
            # No known event is later, but one may be on the tape.
            await self._catch_up()
            cursor, last = await self._reads.call(self._store.past.cursor_at, time)
        if last:
            # Then no event is later, not even behind a gap.
            cursor = max(cursor, (await self._reads.call(self._store.committed.reach)).horizon)
        return cursor


def _named(point: int | datetime) -> str:
    return point.isoformat() if isinstance(point, datetime) else f"cursor {point}"
