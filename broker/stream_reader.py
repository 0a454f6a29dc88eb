"""Reads the tape from a position, in order, with bounded memory.

It does not use aio-pika's iterator or ``process()``: both may nack, and a nack on a stream closes the connection on
RabbitMQ 3.10. Deliveries go into a buffer that the prefetch bounds. Messages that are returned are acknowledged
by the hundred, so that the next ones arrive while they are processed, and single ones cost no write to the socket. The
reader itself keeps its position; acknowledgements do not.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal

import aiormq.exceptions
from pamqp.common import FieldValue

from jobtape.broker.channels import Channel, close_channel, consume, open_channel
from jobtape.broker.declare import is_missing
from jobtape.broker.frames import Delivered
from jobtape.broker.link import Connection
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing

PREFETCH = 500
"""Messages that the broker sends ahead of their acknowledgement."""
ATTACH_TIMEOUT = 15.0
"""Seconds; a stream without a leader does not answer for a while."""
LAST_CHUNK_TIMEOUT: Final = 0.5
"""Seconds without a message after which a stream counts as empty."""
OFFSET_HEADER: Final = b"x-stream-offset"
Start = int | Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class TapeMessage:
    """A message on the tape."""

    offset: int
    body: bytes
    key: str


class StreamReader:
    """``async with StreamReader(connection, "ns.log", 17) as reader: batch = await reader.read(500)``.

    An integer ``start`` is the offset of the first message to read. If the broker no longer has it, reading starts at
    the oldest message; if it is beyond the end, nothing is read. So the caller compares offsets.
    """

    def __init__(self, connection: Connection, queue: str, start: Start, *, prefetch: int = PREFETCH) -> None:
        self._connection = connection
        self._queue = queue
        self._start = start
        self._prefetch = prefetch
        self._unacknowledged = 0
        """How many of the messages that were returned."""
        self._buffer: deque[Delivered] = deque()
        self._changed = asyncio.Event()
        self._ended: str | None = None
        self._interrupted = False
        self._channel: Channel | None = None

    async def __aenter__(self) -> "StreamReader":
        """Attach. Raises TapeMissing when the stream does not exist, BrokerUnavailable when it has no leader."""
        try:
            async with asyncio.timeout(ATTACH_TIMEOUT):
                return await self._attach()
        except BaseException:
            # ``__aexit__`` is not called in this case.
            await self.__aexit__(None, None, None)
            raise

    async def _attach(self) -> "StreamReader":
        self._channel = await open_channel(self._connection)
        self._channel.closing.add_done_callback(lambda _: self._end("its channel was closed"))
        self._channel.on_consumer_cancel_callbacks.add(lambda _: self._end("the broker cancelled it"))
        await self._channel.basic_qos(prefetch_count=self._prefetch)
        try:
            start: dict[str, FieldValue] = {"x-stream-offset": self._start}
            await consume(self._connection, self._channel, self._queue, self._deliver, arguments=start)
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            if is_missing(error):
                raise TapeMissing(f"the tape {self._queue} does not exist on the broker") from None
            raise BrokerUnavailable(f"the tape {self._queue} has no leader yet; attach again") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None and not self._channel.is_closed:
            await close_channel(self._channel)

    async def read(self, limit: int, timeout: float | None = None) -> list[TapeMessage]:
        """Wait for messages and return at most ``limit``, or an empty list when none came within ``timeout`` seconds,
        or after ``interrupt``. Raises BrokerUnavailable when the consumer has ended.
        """
        if not self._buffer:
            try:
                async with asyncio.timeout(timeout):
                    while not self._buffer:
                        if self._interrupted:
                            return []
                        if self._ended is not None:
                            raise BrokerUnavailable(f"reading {self._queue} ended: {self._ended}; attach again")
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                return []
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        self._unacknowledged += len(taken)
        if self._unacknowledged > self._prefetch // 4 and self._channel is not None and not self._channel.is_closed:
            self._unacknowledged = 0
            await self._channel.basic_ack(taken[-1].tag, multiple=True, wait=False)
        return [_tape_message(message) for message in taken]

    def interrupt(self) -> None:
        """Let ``read`` wait no longer, now and later."""
        self._interrupted = True
        self._changed.set()

    def _deliver(self, messages: list[Delivered]) -> None:
        self._buffer.extend(messages)
        self._changed.set()

    def _end(self, why: str) -> None:
        self._ended = why
        self._changed.set()


async def last_chunk(connection: Connection, queue: str) -> int | None:
    """Return the offset of the first message of the stream's last chunk; None if there is none yet.

    A chunk is what the broker has written at once. Its other messages would have to be read to count them. Raises
    TapeMissing, BrokerUnavailable and one of ``BROKER_ERRORS``.
    """
    async with StreamReader(connection, queue, "last", prefetch=1) as reader:
        found = await reader.read(1, timeout=LAST_CHUNK_TIMEOUT)
    return found[0].offset if found else None


def _tape_message(message: Delivered) -> TapeMessage:
    offset = message.integer(OFFSET_HEADER)
    if offset is None:
        raise BrokerUnavailable(f"a message of the tape has no {OFFSET_HEADER.decode()}: attach again")
    return TapeMessage(offset, message.body, message.key)
