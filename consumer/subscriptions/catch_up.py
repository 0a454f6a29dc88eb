"""The source of a subscription with ``since``: history first, then live events, both from the committed history.

Reading one source leaves no gap between the two, and a delivered event can be read with GET. With a name, the position
is stored after the subscriber has handled an event, and one consumer of that name is active. The others stand by, and
take over when it ends or its lease expires.
"""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal
from uuid import uuid4

from jobtape.consumer.subscriptions.history_reader import RETRY_PAUSE, HistoryReader, Start
from jobtape.consumer.subscriptions.position_lease import PositionLease
from jobtape.schemas.errors import ViewUnavailable
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.messages.delivered_event import DeliveredEvent
from jobtape.view.store import Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

Since = int | datetime | Literal["first", "now"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds for storing the last position."""


class CatchUpSource:
    """An ``EventSource``. ``lease``: seconds after the death of a consumer until another of its name takes over."""

    def __init__(
        self, store: Store, wanted: Selection, since: Since, *, name: str | None, lease: float, skip_gaps: bool
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._since = since
        self._name = name
        self._lease_seconds = lease
        self._skip_gaps = skip_gaps
        self._thread = DatabaseThreads("subscription")
        self._lease: PositionLease | None = None
        self._reader: HistoryReader | None = None

    async def open(self) -> None:
        """Find the start position. Raises ViewUnavailable."""
        if self._name is not None:
            owner = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
            self._lease = PositionLease(self._store.positions, self._name, owner, self._lease_seconds)
        start = await self._thread.call(self._start if self._lease is None else self._take)
        self._reader = None if start is None else self._reader_from(start)

    async def receive(self) -> DeliveredEvent:
        """Wait for the next event and return it. Raises HistoryGone."""
        while True:
            if self._lease is not None and not self._lease.held:
                self._reader = None
            reader = self._reader or await self._stand_by()
            if (event := reader.take()) is not None:
                return event
            await reader.poll()
            if self._lease is not None:
                self._lease.skip_to(reader.passed)

    async def acknowledge(self, event: DeliveredEvent) -> None:
        """Store the position if there is a name. Repeats until it is stored or another consumer has taken over."""
        lease, reader = self._lease, self._reader
        if lease is None or reader is None or not lease.held:
            return
        cursor = max(reader.passed, event.cursor)
        while True:
            try:
                if not await self._thread.call(lease.move, cursor):
                    log.warning("another consumer has taken over %r: the last event may be delivered again", self._name)
                return
            except ViewUnavailable as error:
                log.warning("the position of %r is not stored: %s; trying again", self._name, error)
                await asyncio.sleep(RETRY_PAUSE)

    async def close(self) -> None:
        """Release the lease, so that another consumer can continue at once."""

        def end() -> None:
            with suppress(ViewUnavailable):  # The lease expires then.
                if self._lease is not None:
                    self._lease.release()
            self._store.close()

        ending = self._thread.call(end)
        self._thread.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await asyncio.shield(ending)
        except TimeoutError:
            log.warning("the database does not answer; the subscription ends in its thread")

    async def _stand_by(self) -> HistoryReader:
        """Wait until this consumer has the lease, and return a reader from its position."""
        logged = False
        while True:
            try:
                start = await self._thread.call(self._take)
            except ViewUnavailable as error:
                log.warning("waiting for the position of %r: %s", self._name, error)
                await asyncio.sleep(RETRY_PAUSE)
                continue
            if start is not None:
                self._reader = self._reader_from(start)
                return self._reader
            if not logged:
                log.info("another consumer of %r is active; standing by", self._name)
                logged = True
            await asyncio.sleep(min(1.0, self._lease_seconds / 4))

    def _take(self) -> Start | None:
        """Take the lease. Create the position if there is none (or none any more: it may have been removed)."""
        assert self._lease is not None
        cursor = self._lease.take()
        if cursor is not None:
            return Start(cursor)
        if not self._lease.exists():
            start = self._start()
            if self._lease.create(start.cursor) and self._lease.take() is not None:
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

    def _reader_from(self, start: Start) -> HistoryReader:
        return HistoryReader(self._store, self._wanted, start, skip_gaps=self._skip_gaps, thread=self._thread)
