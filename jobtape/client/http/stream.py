"""Reads server-sent events without end; after a lost connection it continues after the last event.

Theory of operation: every event has a cursor, and the API sends the events after a cursor in the tape's order. So the
reader remembers one number, its position. The first message of a connection (``hello``) contains the position before
any event has come. An event at or before the position is a duplicate and is skipped. When the events after the
position are no longer kept, the API sends ``reset``, and the reader raises HistoryGone instead of leaving a gap.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal

import httpx
from httpx_sse import EventSource, ServerSentEvent

from jobtape.client.errors import ApiError, NoAnswer, Unavailable, Unreachable, WrongAddress
from jobtape.client.filters import Query
from jobtape.client.http.connection import ApiConnection, pauses
from jobtape.schemas import plainjson
from jobtape.schemas.errors import HistoryGone, UnreadableEvent
from jobtape.schemas.messages.delivered_event import DeliveredEvent, decode_delivered

log = logging.getLogger(__name__)

OUTAGE: Final = 600.0
"""Default in seconds: how long a reader retries while the API is unavailable."""
SILENCE: Final = 60.0
"""Seconds without a byte until the connection counts as dead. By default the API sends a keep-alive every 15."""
STEADY: Final = 10.0
"""Seconds: after a connection that lasted this long, the retry pauses start at the shortest one."""

Since = int | Literal["first"] | None


class EventReader:
    """Reads ``/events`` with the filters in ``query``.

    ``since``: start after this cursor; ``"first"`` starts with the oldest event, None with new ones. ``outage``:
    seconds without the API after which the reader raises; until the first connection, ``RequestPolicy.patience`` holds.
    """

    def __init__(self, connection: ApiConnection, query: Query, since: Since, *, outage: float) -> None:
        self._connection = connection
        self._query = list(query)
        self.position: Since = since
        """The cursor after which the reader continues."""
        self._outage = outage
        self._greeted = False
        """Whether ``hello`` came on this connection."""

    async def events(self) -> AsyncGenerator[DeliveredEvent, None]:
        """Yield each event once, in the tape's order. Raises HistoryGone, UnreadableEvent and ApiError."""
        waits, deadline = pauses(), time.monotonic() + self._connection.policy.patience
        while True:
            self._greeted, begun, position = False, time.monotonic(), self.position
            try:
                async with aclosing(self._one_connection()) as received:
                    async for one in received:
                        yield one
                broken: ApiError = NoAnswer(f"{self._connection.url} ended the stream of events")
            except (Unreachable, NoAnswer, Unavailable) as error:
                broken = error
            now = time.monotonic()
            if self._greeted:
                deadline = now + self._outage
                if now - begun > STEADY or self.position != position:
                    waits = pauses()
            wait = self._connection.pause_after(broken, next(waits))
            if wait is None or now + wait > deadline:
                raise broken
            log.info("%s: reconnecting after cursor %s in %.1f s", broken, self.position, wait)
            await asyncio.sleep(wait)

    async def _one_connection(self) -> AsyncGenerator[DeliveredEvent, None]:
        after = [] if self.position is None else [("after", str(self.position))]
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        params = httpx.QueryParams([*self._query, *after])
        async with self._connection.stream("/events", silence=SILENCE, params=params, headers=headers) as answer:
            kind = answer.headers.get("content-type", "nothing")
            if not kind.startswith("text/event-stream"):
                raise WrongAddress(f"{answer.url} answers with {kind}: check {self._connection.policy.hint}")
            async with aclosing(EventSource(answer).aiter_sse()) as messages:
                async for message in messages:
                    if (one := self._event_of(message)) is not None:
                        yield one

    def _event_of(self, message: ServerSentEvent) -> DeliveredEvent | None:
        """Move the position past the message, and return its event, or None when it has no new event."""
        if not message.data:
            # A keep-alive contains how far the API has read. So the position of a reader with few matching events stays
            # within the history that is kept.
            if isinstance(self.position, int) and message.id.isdecimal():
                self.position = max(self.position, int(message.id))
            return None
        if message.event == "hello":
            self._greeted = True
            # Keep a position that is known already: a reset may follow.
            if not isinstance(self.position, int):
                self.position = _number(_content(message), "cursor")
            return None
        if message.event == "reset":
            content = _content(message)
            raise HistoryGone(_number(content, "horizon"), _number(content, "head"), _number({"id": message.id}, "id"))
        received = decode_delivered(message.data.encode())
        if isinstance(self.position, int) and received.cursor <= self.position:
            return None
        self.position = received.cursor
        return received


def _content(message: ServerSentEvent) -> Mapping[str, Any]:
    try:
        content = plainjson.loads(message.data.encode())
    except plainjson.NotJson:
        content = None
    if not isinstance(content, dict):
        raise UnreadableEvent(f"the message {message.event!r} of the API is not a JSON object")
    return content


def _number(content: Mapping[str, Any], name: str) -> int:
    try:
        return int(content[name])
    except (KeyError, TypeError, ValueError):
        raise UnreadableEvent(f"a message of the API has no number {name!r}") from None
