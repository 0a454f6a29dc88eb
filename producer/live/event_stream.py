"""Server-sent events: the response of ``GET /events`` and of ``GET /jobs/{id}/events``.

Theory of operation. FastAPI's own ``fastapi.sse`` runs a generator beside a queue for every client, and lets nobody say
how long a client may take to read. Here one task speaks and one waits for the client to leave; what is delivered is in
memory once for all. The place is taken when the response begins to run, not in a generator, which is never entered when
the client leaves before: so it always comes back.

The first message is ``hello`` with the position as its id, so that a client cut before the first event can resume.
Keep-alives carry the position too: by the standard, an ``id`` without ``data`` moves the last event id and no more. So
a client that wants little does not fall behind what is kept.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobtape.producer.live.client_writer import ClientStalled, ClientWriter
from jobtape.producer.live.event_buffer import BufferedEvent
from jobtape.producer.live.follower import AT_ONCE, After, Follower, Reset
from jobtape.producer.live.listeners import Listeners
from jobtape.schemas.selection import Selection

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "text/event-stream"
HEAD: Final = "jobtape.head"
"""The key in an ASGI scope that says that the request was a HEAD: only the headers are wanted."""
RETRY: Final = 2000
"""Milliseconds after which a browser connects again."""
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Enough = Callable[[str | None, int], Awaitable[bool]]
"""Whether the stream ends behind the event of this name at this cursor; with None, when nothing came up to there."""


async def never(_: str | None, __: int) -> bool:
    """The stream goes on for ever."""
    return False


class EventStream(Response):
    """``keep_alive``: seconds without an event until a sign of life; ``stall``: seconds that one piece may take to be
    read; ``hidden``: names of events that may be enough, and are not delivered.
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Raises TooBusy or ViewUnavailable before anything is sent."""
        if scope.get(HEAD):
            await self._show_headers(send)
            return
        with self._listeners.place("sse"):
            follower = self._listeners.follower(self._selection)
            await follower.begin(self._after)
            writer = ClientWriter(send, self._stall)
            leaving = asyncio.create_task(gone(receive), name="a client of server-sent events")
            leaving.add_done_callback(lambda _: follower.stop())
            try:
                with self._listeners.notified_of_end(follower.stop, writer.hasten):
                    await self._speak(follower, writer)
            except ClientStalled:
                # A client that does not read gets no error: the server ends the connection of an incomplete response.
                log.info("a client of server-sent events has read nothing for %g s: its connection ends", self._stall)
            except OSError:
                log.debug("a client of server-sent events left")
            finally:
                leaving.cancel()
                self._listeners.pages += follower.pages

    async def _show_headers(self, send: Send) -> None:
        """What a stream would begin with, or be refused with; no place is taken."""
        self._listeners.check_room()
        await self._listeners.follower(self._selection).begin(self._after)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _speak(self, follower: Follower, writer: ClientWriter) -> None:
        await writer.send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _say(writer, _hello(follower.position))
        if not await self._enough(None, follower.position):
            await self._follow(follower, writer)
        await writer.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, follower: Follower, writer: ClientWriter) -> None:
        while not follower.stopped:
            found = await follower.next(self._keep_alive)
            if isinstance(found, Reset):
                await _say(writer, _reset(found, follower.position))
            elif found:
                if await self._tell(found, writer):
                    return
            elif not follower.stopped:
                await _say(writer, b": keep-alive\nid: %d\n\n" % follower.position)
                if await self._enough(None, follower.position):
                    return

    async def _tell(self, entries: Sequence[BufferedEvent], writer: ClientWriter) -> bool:
        """Whether it was enough."""
        frames: list[bytes] = []
        size = 0
        for entry in entries:
            if entry.name not in self._hidden:
                frames.append(_frame(entry))
                size += len(frames[-1])
                self._listeners.delivered["sse"] += 1
            enough = await self._enough(entry.name, entry.cursor)
            if frames and (size >= AT_ONCE or enough):
                await _say(writer, b"".join(frames))
                frames, size = [], 0
            if enough:
                return True
        if frames:
            await _say(writer, b"".join(frames))
        return False


async def gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _say(writer: ClientWriter, text: bytes) -> None:
    await writer.send({"type": "http.response.body", "body": text, "more_body": True})


def _hello(position: int) -> bytes:
    return b'retry: %d\nevent: hello\nid: %d\ndata: {"cursor":%d}\n\n' % (RETRY, position, position)


def _reset(reset: Reset, position: int) -> bytes:
    return b'event: reset\nid: %d\ndata: {"horizon":%d,"head":%d}\n\n' % (position, reset.horizon, reset.head)


def _frame(entry: BufferedEvent) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (entry.cursor, entry.name.encode(), entry.delivered)
