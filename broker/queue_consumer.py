"""Consumes queues over one channel, until the channel ends.

What one pass of the event loop acknowledges is written together, and all deliveries before the first one that is still
open by one frame. For a quorum queue each frame is a command, which it replicates and writes to disk.
"""

import asyncio
import logging
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final

from jobtape.broker.channels import Channel, close_channel, consume, open_channel
from jobtape.broker.frames import Delivered, FrameWriter, is_open
from jobtape.broker.link import BROKER_ERRORS, Connection

log = logging.getLogger(__name__)

CANCEL_TIMEOUT: Final = 5.0
"""Seconds for ending all consumers."""
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

    def __init__(self, message: Delivered, queue: str, settlements: "_Settlements") -> None:
        self.body = message.body
        self.queue = queue
        """The queue's name on the broker."""
        self._message = message
        self._settlements = settlements

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
        return self._settlements.possible

    @property
    def count(self) -> int:
        """How many of its earlier deliveries count as failed: their worker died or rejected them."""
        return self._message.integer(COUNT_HEADER) or 0

    async def ack(self) -> None:
        """Acknowledge it."""
        self._settlements.ack(self._message.tag)

    async def ack_all(self) -> None:
        """Acknowledge it and all deliveries of its channel before it."""
        self._settlements.ack_all(self._message.tag)

    async def requeue(self) -> None:
        """Give back a delivery that was not started: another worker may have it at once."""
        self._settlements.give_back(self._message.tag, _NACK, _NACK_REQUEUE)

    async def reject(self) -> None:
        """Give back a delivery that could not be handled. It counts towards the queue's delivery limit on every version
        of RabbitMQ (4.3 does not count a nack).
        """
        self._settlements.give_back(self._message.tag, _REJECT, _REJECT_REQUEUE)


class _Settlements:
    """Settles the deliveries of a channel by their tags. When the channel is closed it does nothing."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._writer = FrameWriter(channel)
        self._open: dict[int, None] = {}
        """The tags that are not settled, in their order."""
        self._acked: list[int] = []
        """Those for which no frame was written yet."""

    @property
    def possible(self) -> bool:
        return is_open(self._channel) and not self._writer.ended

    def expect(self, tag: int) -> None:
        self._open[tag] = None

    def ack(self, tag: int) -> None:
        if tag not in self._open:  # it was settled before
            return
        del self._open[tag]
        if not self._acked:
            asyncio.get_running_loop().call_soon(self._write_acks)
        self._acked.append(tag)

    def ack_all(self, tag: int) -> None:
        for each in [each for each in self._open if each <= tag]:
            self.ack(each)

    def give_back(self, tag: int, method: int, flags: int) -> None:
        if tag in self._open:
            del self._open[tag]
            self._write(tag, method, flags)  # before the acks of this pass, which may cover it

    def end(self) -> None:
        """Write what was gathered, and nothing after it: the channel is about to be closed."""
        self._write_acks()
        self._writer.end()

    def _write_acks(self) -> None:
        acked, self._acked = self._acked, []
        first_open = next(iter(self._open), math.inf)
        covered = [tag for tag in acked if tag < first_open]
        if covered:
            self._write(max(covered), _ACK, _MULTIPLE)
        for tag in acked:
            if tag > first_open:
                self._write(tag, _ACK, 0)
        self._writer.flush()

    def _write(self, tag: int, method: int, flags: int) -> None:
        if self.possible:
            self._writer.write(_SETTLE.pack(1, self._channel.number, 13, 60, method, tag, flags, 0xCE))


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
        self._settlements: _Settlements | None = None

    async def __aenter__(self) -> "QueueConsumer":
        try:
            self._channel = channel = await open_channel(self._connection)
            channel.closing.add_done_callback(lambda _: self.ended.set())
            channel.on_consumer_cancel_callbacks.add(lambda _: self.ended.set())
            self._settlements = _Settlements(channel)
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
            if self._settlements is not None:
                self._settlements.end()
            await close_channel(self._channel)

    async def stop_consuming(self) -> None:
        """Take no new deliveries. Those taken before can still be settled."""
        assert self._channel is not None
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(CANCEL_TIMEOUT):
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
        settlements = self._settlements
        assert settlements is not None
        for message in messages:
            settlements.expect(message.tag)
            delivery = Delivery(message, queue, settlements)
            try:
                self._deliver(delivery)
            except Exception:
                log.exception("a delivery of %s could not be handled and is rejected: please report this bug", queue)
                settlements.give_back(message.tag, _REJECT, _REJECT_REQUEUE)
