"""Reads server-sent events for as long as one likes: after any cut it goes on behind the last event that it gave.

Theory of operation: every event has a cursor, and the API sends what comes after a cursor in the tape's order. So one
number is all that has to be remembered. The first message of a connection (``hello``) names it before any event has
come; an event at or below it is a repeat. When history behind it is gone the API says ``reset``, and the reader gets
HistoryGone instead of a gap.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal

import httpx
from httpx_sse import EventSource, ServerSentEvent

from jobtape.client.connection import ApiConnection, pauses
from jobtape.client.encoding import Query
from jobtape.client.errors import ApiError, NoAnswer, Unavailable, Unreachable, WrongAddress
from jobtape.schemas import plainjson
from jobtape.schemas.delivered_event import DeliveredEvent, decode_delivered
from jobtape.schemas.errors import HistoryGone, UnreadableEvent

log = logging.getLogger(__name__)

OUTAGE: Final = 600.0
"""Seconds without the API after which a reader gives up, by default."""
SILENCE: Final = 60.0
"""Seconds; the API sends something every 15 by default."""
STEADY: Final = 10.0
"""Seconds; a connection that lasted as long was a good one, and the next try follows soon."""

Since = int | Literal["first"] | None


class EventReader:
    """Follows ``/events`` with the filters in ``query``: from behind the cursor ``since``, from the first event there
    is, or (None) from now.

    It gives up after ``outage`` seconds without the API; before it has found it the first time, after the patience of
    any request.
    """

    def __init__(self, connection: ApiConnection, query: Query, since: Since, *, outage: float) -> None:
        self._connection = connection
        self._query = list(query)
        self.position: Since = since
        """The cursor behind which it goes on."""
        self._outage = outage
        self._greeted = False
        """Whether this connection has said ``hello``."""

    async def events(self) -> AsyncGenerator[DeliveredEvent, None]:
        """Each event once, in the tape's order, without end. Raises HistoryGone, UnreadableEvent and ApiError."""
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
            log.info("%s: going on behind cursor %s in %.1f s", broken, self.position, wait)
            await asyncio.sleep(wait)

    async def _one_connection(self) -> AsyncGenerator[DeliveredEvent, None]:
        after = [] if self.position is None else [("after", str(self.position))]
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        params = httpx.QueryParams([*self._query, *after])
        async with self._connection.stream("/events", silence=SILENCE, params=params, headers=headers) as answer:
            kind = answer.headers.get("content-type", "nothing")
            if not kind.startswith("text/event-stream"):
                raise WrongAddress(f"{answer.url} answers with {kind}: see {self._connection.policy.hint}")
            async with aclosing(EventSource(answer).aiter_sse()) as messages:
                async for message in messages:
                    if (one := self._taken(message)) is not None:
                        yield one

    def _taken(self, message: ServerSentEvent) -> DeliveredEvent | None:
        """The event of a message that is one, and not a repeat; the position has moved behind it."""
        if not message.data:
            # A sign of life says how far the tape has been read: who wants little does not fall behind what is kept.
            if isinstance(self.position, int) and message.id.isdecimal():
                self.position = max(self.position, int(message.id))
            return None
        if message.event == "hello":
            self._greeted = True
            # A position of ours stays until history moves it: a reset may follow.
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
        raise UnreadableEvent(f"the message {message.event!r} of the API is no JSON object")
    return content


def _number(content: Mapping[str, Any], name: str) -> int:
    try:
        return int(content[name])
    except (KeyError, TypeError, ValueError):
        raise UnreadableEvent(f"a message of the API has no number {name!r}") from None
