"""Server-sent events: the response of ``GET /events`` and of ``GET /jobs/{id}/events``.

Theory of operation. FastAPI's own ``fastapi.sse`` runs a generator and a queue for every client, and has no limit for
the time that a client takes to read. Here one task sends and one waits for the client to leave, and all clients share
the events in memory. The listener is counted when the response begins to run, not in a generator: that is never entered
when the client leaves earlier, so its end would not be noticed.

The first message is ``hello`` with the position as its id, so that a client that is cut off before the first event can
resume. Keep-alives have the position too: an ``id`` without ``data`` only moves the last event id. So a client whose
filter matches rarely does not fall behind the history that is kept.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobtape.producer.live.client_writer import ClientStalled, ClientWriter
from jobtape.producer.live.follower import AT_ONCE, After, Follower, Reset
from jobtape.producer.live.listeners import Listeners
from jobtape.schemas.filters.selection import Selection
from jobtape.view.store import CommittedEvent

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
HEAD: Final = "jobtape.head"
"""The key in an ASGI scope that marks a HEAD request, which gets only the headers."""
RETRY: Final = 2000
"""Milliseconds after which a browser connects again."""
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Enough = Callable[[str | None, int], Awaitable[bool]]
"""Returns whether the stream ends after the event of this name at this cursor. The name is None when there was no event
up to the cursor."""


async def never(_: str | None, __: int) -> bool:
    """Return False: the stream does not end by itself."""
    return False


class EventStream(Response):
    """``keep_alive``: seconds without an event until a keep-alive is sent. ``stall``: seconds within which the client
    must read one message. ``hidden``: names of events that may end the stream and are not delivered. ``until``: the
    stream ends when it returns.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        listeners: Listeners,
        selection: Selection,
        after: After,
        *,
        keep_alive: float,
        stall: float,
        enough: Enough = never,
        hidden: frozenset[str] = frozenset(),
        until: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._listeners = listeners
        self._selection = selection
        self._after = after
        self._keep_alive = keep_alive
        self._stall = stall
        self._enough = enough
        self._hidden = hidden
        self._until = until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request. Raises TooBusy and ViewUnavailable before anything is sent."""
        if scope.get(HEAD):
            await self._send_headers(send)
            return
        with self._listeners.admit("sse"):
            follower = self._listeners.follower(self._selection)
            await follower.begin(self._after)
            writer = ClientWriter(send, self._stall)
            leaving = asyncio.create_task(gone(receive), name="a client of server-sent events")
            ends = [leaving]
            if self._until is not None:
                ends.append(asyncio.ensure_future(self._until()))
            for end in ends:
                end.add_done_callback(lambda _: follower.stop())
            try:
                with self._listeners.on_stop(follower.stop, writer.shorten_limit):
                    await self._stream(follower, writer)
            except ClientStalled:
                # A client that does not read gets no error: the server ends the connection of an incomplete response.
                log.info("a client of server-sent events has read nothing for %g s: its connection ends", self._stall)
            except OSError:
                log.debug("a client of server-sent events left")
            finally:
                for end in ends:
                    end.cancel()
                self._listeners.pages += follower.pages

    async def _send_headers(self, send: Send) -> None:
        """Send the headers of a stream, or raise what it would raise. It does not count as a listener."""
        self._listeners.check_room()
        await self._listeners.follower(self._selection).begin(self._after)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, follower: Follower, writer: ClientWriter) -> None:
        await writer.send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _send(writer, _hello(follower.position))
        if not await self._enough(None, follower.position):
            await self._follow(follower, writer)
        await writer.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, follower: Follower, writer: ClientWriter) -> None:
        while not follower.stopped:
            found = await follower.next(self._keep_alive)
            if isinstance(found, Reset):
                await _send(writer, _reset(found, follower.position))
            elif found:
                if await self._deliver(found, writer):
                    return
            elif not follower.stopped:
                await _send(writer, b": keep-alive\nid: %d\n\n" % follower.position)
                if await self._enough(None, follower.position):
                    return

    async def _deliver(self, entries: Sequence[CommittedEvent], writer: ClientWriter) -> bool:
        """Deliver events, and return whether the stream ends after one of them."""
        frames: list[bytes] = []
        size = 0
        for entry in entries:
            if entry.name not in self._hidden:
                frames.append(_frame(entry))
                size += len(frames[-1])
                self._listeners.delivered["sse"] += 1
            enough = await self._enough(entry.name, entry.cursor)
            if frames and (size >= AT_ONCE or enough):
                await _send(writer, b"".join(frames))
                frames, size = [], 0
            if enough:
                return True
        if frames:
            await _send(writer, b"".join(frames))
        return False


async def gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(writer: ClientWriter, text: bytes) -> None:
    await writer.send({"type": "http.response.body", "body": text, "more_body": True})


def _hello(position: int) -> bytes:
    return b'retry: %d\nevent: hello\nid: %d\ndata: {"cursor":%d}\n\n' % (RETRY, position, position)


def _reset(reset: Reset, position: int) -> bytes:
    return b'event: reset\nid: %d\ndata: {"horizon":%d,"head":%d}\n\n' % (position, reset.horizon, reset.head)


def _frame(entry: CommittedEvent) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (entry.cursor, entry.name.encode(), entry.delivered)
