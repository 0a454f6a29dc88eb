"""Reads the tape from a position, in order, with bounded memory.

No iterator and no ``process()`` of aio-pika's: both may nack, and a nack on a stream closes the connection on
RabbitMQ 3.10. Deliveries go into a buffer that the broker's prefetch bounds; what is handed out is acknowledged at
once, so that as much again arrives while it is worked on. Where a reader stands is its own business, and no
acknowledgement's.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import aiormq.abc
import aiormq.exceptions

from jobtape.broker.channels import Channel, open_channel
from jobtape.broker.declare import is_missing
from jobtape.broker.link import Connection
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing

PREFETCH = 300
ATTACH_LIMIT = 15.0
"""Seconds; a stream without a leader answers nothing for a while."""
Start = int | Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A message on the tape."""

    offset: int
    body: bytes
    key: str
    headers: Mapping[str, Any]


class StreamReader:
    """``async with StreamReader(connection, "ns.log", 17) as reader: batch = await reader.read(500)``.

    An integer start is the offset of the first message wanted; the broker goes to the first one that it still has
    when that is gone, and shows nothing when it lies beyond the end. It is for the caller to compare.
    """

    def __init__(self, connection: Connection, queue: str, start: Start, *, prefetch: int = PREFETCH) -> None:
        self._connection = connection
        self._queue = queue
        self._start = start
        self._prefetch = prefetch
        self._buffer: deque[aiormq.abc.DeliveredMessage] = deque()
        self._changed = asyncio.Event()
        self._ended: str | None = None
        self._channel: Channel | None = None

    async def __aenter__(self) -> "StreamReader":
        """Attach. Raises TapeMissing when the stream does not exist, BrokerUnavailable when it has no leader."""
        try:
            async with asyncio.timeout(ATTACH_LIMIT):
                return await self._attach()
        except BaseException:
            # ``__aexit__`` is not called then
            await self.__aexit__(None, None, None)
            raise

    async def _attach(self) -> "StreamReader":
        self._channel = await open_channel(self._connection)
        self._channel.closing.add_done_callback(lambda _: self._end("its channel was closed"))
        self._channel.on_consumer_cancel_callbacks.add(lambda _: self._end("the broker ended it"))
        await self._channel.basic_qos(prefetch_count=self._prefetch)
        try:
            await self._channel.basic_consume(self._queue, self._on_message, arguments={"x-stream-offset": self._start})
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            if is_missing(error):
                raise TapeMissing(f"the tape {self._queue} is not on the broker") from None
            raise BrokerUnavailable(f"the tape {self._queue} has no leader yet; attach again") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach."""
        if self._channel is not None and not self._channel.is_closed:
            try:
                async with asyncio.timeout(5):
                    await self._channel.close()
            except (aiormq.exceptions.AMQPError, TimeoutError, RuntimeError, OSError):
                return

    async def read(self, limit: int, timeout: float | None = None) -> list[Recorded]:
        """The next messages, at least one and at most ``limit``, as soon as there are any; an empty list when
        ``timeout`` seconds pass without. Raises BrokerUnavailable when the attachment has ended.
        """
        if not self._buffer:
            try:
                async with asyncio.timeout(timeout):
                    while not self._buffer:
                        if self._ended is not None:
                            raise BrokerUnavailable(f"reading {self._queue} ended: {self._ended}; attach again")
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                return []
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        await self._acknowledge(taken[-1].delivery_tag)
        return [_recorded(message) for message in taken]

    async def _acknowledge(self, tag: int | None) -> None:
        if tag is not None and self._channel is not None and not self._channel.is_closed:
            await self._channel.basic_ack(tag, multiple=True, wait=False)

    async def _on_message(self, message: aiormq.abc.DeliveredMessage) -> None:
        # aiormq starts one task a delivery, in the order of delivery; this one never waits, so the order stays.
        self._buffer.append(message)
        self._changed.set()

    def _end(self, why: str) -> None:
        self._ended = why
        self._changed.set()


def _recorded(message: aiormq.abc.DeliveredMessage) -> Recorded:
    headers = message.header.properties.headers or {}
    offset = headers["x-stream-offset"]
    assert isinstance(offset, int)
    return Recorded(offset, message.body, message.routing_key or "", headers)
