"""Consumes queues over one channel, until the channel ends."""

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final

from jobtape.broker.channels import Channel, consume, open_channel
from jobtape.broker.frames import Delivered, FrameWriter, is_open
from jobtape.broker.link import BROKER_ERRORS, Connection

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 5.0
COUNT_HEADER: Final = b"x-delivery-count"
_SETTLE: Final = struct.Struct(">BHIHHQBB")
"""A frame with a method that settles a delivery, written here because pamqp takes ten times as long: the type of the
frame, channel, length, class and number of the method, delivery tag, flags, and the end of the frame.
"""
_ACK, _REJECT, _NACK = 80, 90, 120
_MULTIPLE = 1
_REJECT_REQUEUE, _NACK_REQUEUE = 1, 2


class Delivery:
    """A message from a queue, to be settled once. When its channel is closed the broker delivers it again, and settling
    does nothing.
    """

    def __init__(self, channel: Channel, writer: FrameWriter, message: Delivered, queue: str) -> None:
        self.body = message.body
        self.queue = queue
        """The queue's name on the broker."""
        self._message = message
        self._channel = channel
        self._writer = writer

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers of the message."""
        return self._message.properties.headers or {}

    @property
    def message_id(self) -> str | None:
        """The message id that its publisher gave it."""
        return self._message.properties.message_id

    @property
    def can_be_settled(self) -> bool:
        """Whether its channel is open; otherwise the broker delivers it to another consumer."""
        return is_open(self._channel) and not self._writer.ended

    @property
    def count(self) -> int:
        """How many of its earlier deliveries count as failed: their worker died or rejected them."""
        return self._message.integer(COUNT_HEADER) or 0

    async def ack(self) -> None:
        """Acknowledge it."""
        self._settle(_ACK)

    async def ack_all(self) -> None:
        """Acknowledge it and all deliveries of its channel before it."""
        self._settle(_ACK, _MULTIPLE)

    async def requeue(self) -> None:
        """Give back a delivery that was not started: another worker may have it at once."""
        self._settle(_NACK, _NACK_REQUEUE)

    async def reject(self) -> None:
        """Give back a delivery that could not be handled. It counts towards the queue's delivery limit on every version
        of RabbitMQ (4.3 does not count a nack).
        """
        self._settle(_REJECT, _REJECT_REQUEUE)

    def _settle(self, method: int, flags: int = 0) -> None:
        if self.can_be_settled:
            self._writer.write(_SETTLE.pack(1, self._channel.number, 13, 60, method, self._message.tag, flags, 0xCE))


class QueueConsumer:
    """``async with QueueConsumer(connection, queues, prefetch=12, deliver=…) as taking: await taking.ended.wait()``.

    ``deliver`` is called for each delivery, in order. ``prefetch`` is per queue. Entering raises one of
    ``BROKER_ERRORS``, also when a queue does not exist. Leaving closes the channel: deliveries that are not settled go
    back to their queue.
    """

    def __init__(
        self,
        connection: Connection,
        queues: Sequence[str],
        *,
        prefetch: int,
        deliver: Callable[[Delivery], None],
    ) -> None:
        self.ended = asyncio.Event()
        """Set when the channel is closed, or when the broker has cancelled a consumer because its queue was deleted."""
        self._connection = connection
        self._queues = queues
        self._prefetch = prefetch
        self._deliver = deliver
        self._tags: dict[str, str] = {}
        self._channel: Channel | None = None
        self._writer: FrameWriter | None = None

    async def __aenter__(self) -> "QueueConsumer":
        try:
            self._channel = channel = await open_channel(self._connection)
            channel.closing.add_done_callback(lambda _: self.ended.set())
            channel.on_consumer_cancel_callbacks.add(lambda _: self.ended.set())
            self._writer = FrameWriter(channel)
            for queue in self._queues:
                await self.consume(queue)
        except BaseException:
            # ``__aexit__`` is not called in this case, and an open channel would keep its deliveries.
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            if self._writer is not None:
                self._writer.end()
            with suppress(*BROKER_ERRORS):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._channel.close()

    async def stop_consuming(self) -> None:
        """Take no new deliveries. Those taken before can still be settled."""
        assert self._channel is not None
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for queue in list(self._tags):
                    await self.cancel(queue)

    @property
    def consumed(self) -> frozenset[str]:
        """The queues that are consumed."""
        return frozenset(self._tags)

    async def consume(self, queue: str, *, prefetch: int | None = None) -> None:
        """Take deliveries of one more queue, with its own ``prefetch``. Raises one of ``BROKER_ERRORS``."""
        assert self._channel is not None
        # It holds for the consumers that are made after it.
        await self._channel.basic_qos(prefetch_count=prefetch or self._prefetch)
        deliver = partial(self._on_messages, queue)
        self._tags[queue] = await consume(self._connection, self._channel, queue, deliver)

    async def cancel(self, queue: str) -> None:
        """Take no new deliveries of one queue; see ``stop_consuming``. Raises one of ``BROKER_ERRORS``."""
        assert self._channel is not None
        await self._channel.basic_cancel(self._tags.pop(queue))

    def _on_messages(self, queue: str, messages: list[Delivered]) -> None:
        assert self._channel is not None
        assert self._writer is not None
        for message in messages:
            delivery = Delivery(self._channel, self._writer, message, queue)
            try:
                self._deliver(delivery)
            except Exception:
                log.exception("a delivery of %s could not be handled and is rejected: please report this bug", queue)
                delivery._settle(_REJECT, _REJECT_REQUEUE)
