"""Moves AMQP frames in bulk, over connections that aiormq keeps.

Theory of operation. aiormq reads each frame with three awaits, and starts a task for each delivery. ``FrameReader``
stands between the socket and aiormq: it takes from the socket what is there, hands the deliveries of channels that have
a ``DeliverySink`` to them in lists, and passes every other frame on to aiormq. ``FrameWriter`` writes in one piece what
one pass of the event loop writes on a channel.

What it leans on: aiormq reads with ``readexactly`` and ``at_eof`` only, and takes what is to be written from the queue
``write_queue`` (aiormq 7.2; tests notice a change). A channel without a sink gets its deliveries from aiormq.
"""

import asyncio
import logging
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, cast

import aiormq
from aiormq.abc import AbstractChannel, ChannelFrame
from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader

log = logging.getLogger(__name__)

READ_SIZE: Final = 2**18
"""Bytes that are taken from the socket at once."""
ALIVE_INTERVAL: Final = 1.0
"""Seconds after which aiormq gets a heartbeat frame when all that came were deliveries: it takes a connection for dead
that has brought it nothing for three heartbeats, and RabbitMQ sends no heartbeats while it sends deliveries."""

_HEAD: Final = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_CONTENT_HEADER: Final = struct.Struct(">BHIHxxQ")
_END: Final = b"\xce"
_DELIVER: Final = struct.pack(">HH", 60, 60)
_CLOSE: Final = frozenset({struct.pack(">HH", 20, 40), struct.pack(">HH", 20, 41)})
_HEARTBEAT_FRAME: Final = bytes((_HEARTBEAT, 0, 0, 0, 0, 0, 0, 0xCE))


def publish_frames(
    number: int, exchange: str, key: str, properties: Basic.Properties, body: bytes, *, mandatory: bool, size: int
) -> list[bytes]:
    """Return the frames of one message on the channel ``number``. ``size``: bytes of the body in one frame.

    Raises TypeError or ValueError for what AMQP cannot carry.
    """
    marshalled = properties.marshal()
    frames = [
        _publish_frame(number, exchange, key, mandatory),
        _CONTENT_HEADER.pack(_HEADER, number, 12 + len(marshalled), Basic.frame_id, len(body)),
        marshalled,
        _END,
    ]
    for start in range(0, len(body), size):
        part = body[start : start + size]
        frames += (_HEAD.pack(_BODY, number, len(part)), part, _END)
    return frames


@lru_cache(1024)
def _publish_frame(number: int, exchange: str, key: str, mandatory: bool) -> bytes:
    return marshal(Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory), number)


def is_open(channel: AbstractChannel) -> bool:
    """Return whether frames may be written on ``channel``.

    aiormq's ``is_closed`` becomes true only some passes of the event loop after it has answered the broker's
    ``Channel.Close``; a frame behind that answer makes the broker end the whole connection.
    """
    channels = getattr(getattr(channel, "connection", None), "channels", {})
    return not channel.is_closed and channels.get(channel.number) is channel


class Delivered:
    """A delivery as it came over the wire: its delivery ``tag``, routing ``key``, ``body``, and on demand its
    properties.
    """

    __slots__ = ("_properties", "_raw", "body", "key", "tag")

    def __init__(self, tag: int, key: str, raw: bytes, body: bytes) -> None:
        self.tag = tag
        self.key = key
        self.body = body
        self._raw = raw
        self._properties: Basic.Properties | None = None

    @property
    def properties(self) -> Basic.Properties:
        """The properties, headers among them; empty ones, and a warning, when they cannot be parsed."""
        if self._properties is None:
            header = ContentHeader()
            try:
                header.unmarshal(self._raw)
                self._properties = header.properties
            except Exception as error:  # noqa: BLE001 - any program may publish anything
                log.warning("a message on %r has properties that cannot be parsed: %r", self.key, error)
                self._properties = Basic.Properties()
        return self._properties

    def integer(self, name: bytes) -> int | None:
        """Return the integer in the header ``name``, None when there is none. The properties are parsed for it only
        where the bytes are not clear.
        """
        pattern = bytes((len(name),)) + name + b"l"
        if name not in self._raw:
            return None
        if self._raw.count(name) == 1 and (at := self._raw.find(pattern)) >= 0:
            at += len(pattern)
            return int.from_bytes(self._raw[at : at + 8], "big", signed=True)
        value = (self.properties.headers or {}).get(name.decode())
        return value if isinstance(value, int) else None


class DeliverySink:
    """Gets the deliveries of one channel: each consumer's callback gets them in lists, in order."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.consumers: dict[bytes, Callable[[list[Delivered]], None]] = {}
        """By consumer tag."""
        self.inside_message = False
        """Whether the next content frames of the channel belong to a delivery."""
        self._gathered: list[Delivered] = []
        self._consumer = self._next_consumer = b""
        self._tag, self._key, self._raw, self._left = 0, "", b"", 0
        self._parts: list[bytes] = []

    def add(self, kind: int, payload: bytes) -> None:
        """Take the payload of the next frame: a deliver method, a content header or a part of a body."""
        if kind == _METHOD:
            at = 5 + payload[4]
            self._next_consumer = payload[5:at]
            self._tag = int.from_bytes(payload[at : at + 8], "big")
            at += 9  # the redelivered flag is behind the tag
            at += 1 + payload[at]
            self._key = payload[at + 1 : at + 1 + payload[at]].decode(errors="surrogateescape")
            self.inside_message = True
        elif kind == _HEADER:
            self._raw = payload
            self._left = int.from_bytes(payload[4:12], "big")
            self._parts = []
            if self._left == 0:
                self._end_message()
        else:
            self._parts.append(payload)
            self._left -= len(payload)
            if self._left <= 0:
                self._end_message()

    def _end_message(self) -> None:
        self.inside_message = False
        if self._next_consumer != self._consumer:
            self.flush()
            self._consumer = self._next_consumer
        self._gathered.append(Delivered(self._tag, self._key, self._raw, b"".join(self._parts)))

    def flush(self) -> None:
        """Hand over what was gathered. Deliveries of a closed channel are dropped: the broker requeues them."""
        gathered, self._gathered = self._gathered, []
        callback = self.consumers.get(self._consumer)
        if not gathered or callback is None or self.channel.is_closed:
            return
        try:
            callback(gathered)
        except Exception:
            log.exception("deliveries could not be handed over")


class FrameReader:
    """Stands for the ``reader`` of a connection: passes its frames on to aiormq, and deliveries to ``sinks``."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.sinks: dict[int, DeliverySink] = {}
        """By channel number."""
        self._source = reader
        self._taken = b""
        self._at = 0
        self._passed = b""
        self._passed_at = 0
        self._last_passed = 0.0
        self._unseen = False
        """Whether frames came that aiormq does not know of."""

    def at_eof(self) -> bool:
        """Return whether everything was read."""
        return self._passed_at >= len(self._passed) and self._at >= len(self._taken) and self._source.at_eof()

    async def readexactly(self, n: int) -> bytes:
        """Return the next ``n`` bytes that are meant for aiormq. Raises IncompleteReadError at the end."""
        while self._passed_at >= len(self._passed):
            self._split()
            if self._passed_at >= len(self._passed):
                await self._take()
        piece = self._passed[self._passed_at : self._passed_at + n]
        self._passed_at += n
        if len(piece) < n:
            raise asyncio.IncompleteReadError(piece, n)
        return piece

    async def _take(self) -> None:
        rest = self._taken[self._at :]
        more = await self._source.read(READ_SIZE)
        if not more:
            self._taken, self._at = b"", 0
            raise asyncio.IncompleteReadError(rest, len(rest) + 1)
        self._taken, self._at = rest + more, 0

    def _split(self) -> None:
        """Go through the frames that were taken, up to one that is for aiormq."""
        taken, at, passed = self._taken, self._at, False
        while not passed and len(taken) - at >= _HEAD.size:
            kind, number, size = _HEAD.unpack_from(taken, at)
            start = at + _HEAD.size
            end = start + size + 1
            if kind not in (_METHOD, _HEADER, _BODY, _HEARTBEAT):
                end = len(taken)  # not a frame: aiormq says what it is
            elif end > len(taken):
                break
            sink = self.sinks.get(number)
            method = taken[start : start + 4] if kind == _METHOD else b""
            if sink is not None and (method == _DELIVER or (kind != _METHOD and sink.inside_message)):
                sink.add(kind, taken[start : end - 1])
                self._unseen = True
            else:
                if sink is not None and method in _CLOSE:
                    del self.sinks[number]
                    sink.flush()
                self._pass(taken[at:end])
                passed = True
            at = end
        self._at = at
        for sink in self.sinks.values():
            sink.flush()
        if self._unseen and not passed and asyncio.get_running_loop().time() - self._last_passed > ALIVE_INTERVAL:
            self._pass(_HEARTBEAT_FRAME)

    def _pass(self, frame: bytes) -> None:
        self._passed, self._passed_at = frame, 0
        self._last_passed = asyncio.get_running_loop().time()
        self._unseen = False


class FrameWriter:
    """Writes frames on the connection of ``channel``, in order: what one pass of the event loop writes in one piece."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.ended = False
        """Whether nothing is written any more."""
        self._channel = channel
        # That of aiormq, or of the broker in memory.
        self._queue = cast(aiormq.Channel, channel).write_queue
        self._gathered: list[bytes] = []
        self._planned = False
        self._waiting: asyncio.Future[Any] | None = None
        channel.closing.add_done_callback(lambda _: self._drop_all())

    def write(self, frames: bytes) -> None:
        """Write ``frames`` at the end of this pass of the event loop, or when the connection takes more."""
        if self.ended:
            return
        self._gathered.append(frames)
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write now what was gathered, if the connection takes more."""
        self._planned = False
        if not is_open(self._channel):
            self._gathered.clear()
        if not self._gathered or self._waiting is not None:
            return
        frame = ChannelFrame(payload=b"".join(self._gathered), should_close=False, drain_future=None)
        self._gathered.clear()
        try:
            self._queue.put_nowait(frame)
        except asyncio.QueueFull:
            self._waiting = asyncio.ensure_future(self._queue.put(frame))
            self._waiting.add_done_callback(self._go_on)

    def end(self) -> None:
        """Write what was gathered, and nothing after it: the channel is about to be closed."""
        self.flush()
        self.ended = True

    def _go_on(self, waiting: "asyncio.Future[Any]") -> None:
        self._waiting = None
        if not waiting.cancelled():
            self.flush()

    def _drop_all(self) -> None:
        self._gathered.clear()
        if self._waiting is not None:
            self._waiting.cancel()
