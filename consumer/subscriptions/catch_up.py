"""History, then live: the source of a subscription with ``since``. It reads the committed history alone, so there is no
seam between the two, and what is delivered is what a GET shows.

With a name, the position is stored after each event's body, and one consumer of that name is active at a time; the
others stand by, and take over when it ends or its lease runs out.
"""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal
from uuid import uuid4

from jobtape.consumer.subscriptions.history_reader import AWAY_PAUSE, HistoryReader, Start
from jobtape.consumer.subscriptions.position_lease import PositionLease
from jobtape.schemas.delivered_event import DeliveredEvent
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.selection import Selection
from jobtape.view.store import Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

Since = int | datetime | Literal["first", "now"]

CLOSE_LIMIT: Final = 5.0


class CatchUp:
    """A ``Source``. ``lease``: for how many seconds a consumer that died keeps the others of its name waiting."""

    def __init__(
        self, store: Store, wanted: Selection, since: Since, *, name: str | None, lease: float, skip_gaps: bool
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._since = since
        self._name = name
        self._lease = lease
        self._skip_gaps = skip_gaps
        self._thread = DatabaseThreads("subscription")
        self._held: PositionLease | None = None
        self._tail: HistoryReader | None = None

    async def open(self) -> None:
        """Find where to begin. Raises ViewUnavailable."""
        if self._name is not None:
            owner = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
            self._held = PositionLease(self._store.positions, self._name, owner, self._lease)
        start = await self._thread.call(self._start if self._held is None else self._take)
        self._tail = None if start is None else self._tail_from(start)

    async def hear(self) -> DeliveredEvent:
        """The next one. Raises HistoryGone."""
        while True:
            if self._held is not None and not self._held.ours:
                self._tail = None
            tail = self._tail or await self._stand_by()
            if (received := tail.take()) is not None:
                return received
            await tail.look()
            if self._held is not None:
                self._held.passed(tail.passed)

    async def settle(self, received: DeliveredEvent) -> None:
        """Store the position, if there is a name: again until the database has it, or another has taken over."""
        held, tail = self._held, self._tail
        if held is None or tail is None or not held.ours:
            return
        cursor = max(tail.passed, received.cursor)
        while True:
            try:
                if not await self._thread.call(lambda: held.move(cursor)):
                    log.warning("the position of %r is no longer ours: the last event may come again", self._name)
                return
            except ViewUnavailable as error:
                log.warning("the position of %r is not stored: %s; trying again", self._name, error)
                await asyncio.sleep(AWAY_PAUSE)

    async def close(self) -> None:
        """Let others of the name go on at once."""

        def end() -> None:
            with suppress(ViewUnavailable):  # the lease then runs out by itself
                if self._held is not None:
                    self._held.release()
            self._store.close()

        ending = self._thread.call(end)
        self._thread.close()
        try:
            async with asyncio.timeout(CLOSE_LIMIT):
                await asyncio.shield(ending)
        except TimeoutError:
            log.warning("the database does not answer; the subscription ends in its thread")

    async def _stand_by(self) -> HistoryReader:
        """Until the position is ours, and from there on."""
        said = False
        while True:
            try:
                start = await self._thread.call(self._take)
            except ViewUnavailable as error:
                log.warning("waiting for the position of %r: %s", self._name, error)
                await asyncio.sleep(AWAY_PAUSE)
                continue
            if start is not None:
                self._tail = self._tail_from(start)
                return self._tail
            if not said:
                log.info("another consumer of %r is active; standing by", self._name)
                said = True
            await asyncio.sleep(min(1.0, self._lease / 4))

    def _take(self) -> Start | None:
        """Hold the position, and let it begin where there is none (any more: somebody may have removed it)."""
        assert self._held is not None
        cursor = self._held.take()
        if cursor is not None:
            return Start(cursor)
        if not self._held.exists():
            start = self._start()
            if self._held.begin(start.cursor) and self._held.take() is not None:
                return start
        return None

    def _start(self) -> Start:
        reach = self._store.committed.reach()
        match self._since:
            case "first":
                return Start(0, horizon=reach.horizon)
            case "now":
                return Start(reach.head, horizon=reach.horizon)
            case int(cursor):
                return Start(cursor)
            case datetime() as time:
                return Start(self._store.committed.before(time), since=time)

    def _tail_from(self, start: Start) -> HistoryReader:
        return HistoryReader(self._store, self._wanted, start, skip_gaps=self._skip_gaps, thread=self._thread)
