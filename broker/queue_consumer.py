"""Consumes queues over one channel, until the channel ends."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

import aiormq.abc

from jobtape.broker.channels import Channel, open_channel
from jobtape.broker.link import BROKER_ERRORS, Connection

CLOSE_TIMEOUT = 5.0


class Delivery:
    """A message from a queue, to be settled once. When its channel is closed the broker delivers it again, and settling
    does nothing.
    """

    def __init__(self, channel: Channel, message: aiormq.abc.DeliveredMessage, queue: str) -> None:
        properties = message.header.properties
        self.body = message.body
        self.headers: Mapping[str, Any] = properties.headers or {}
        self.message_id: str | None = properties.message_id
        self.queue = queue
        """The queue's name on the broker."""
        self._tag = message.delivery_tag or 0
        self._channel = channel

    @property
    def can_be_settled(self) -> bool:
        """Whether its channel is open; otherwise the broker delivers it to another consumer."""
        return not self._channel.is_closed

    @property
    def count(self) -> int:
        """How often a quorum queue delivered it before."""
        count = self.headers.get("x-delivery-count", 0)
        return count if isinstance(count, int) else 0

    async def ack(self) -> None:
        """Acknowledge it."""
        await self._settle(self._channel.basic_ack)

    async def ack_all(self) -> None:
        """Acknowledge it and all deliveries of its channel before it."""
        await self._settle(self._channel.basic_ack, multiple=True)

    async def requeue(self) -> None:
        """Give back a delivery that was not started: another worker may have it at once."""
        await self._settle(self._channel.basic_nack, requeue=True)

    async def reject(self) -> None:
        """Give back a delivery that could not be handled. It counts towards the queue's delivery limit on every version
        of RabbitMQ (4.3 does not count a nack).
        """
        await self._settle(self._channel.basic_reject, requeue=True)

    async def _settle(self, send: Callable[..., Awaitable[None]], **options: bool) -> None:
        with suppress(*BROKER_ERRORS):
            if not self._channel.is_closed:
                await send(self._tag, wait=False, **options)


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
        self._tags: list[str] = []
        self._channel: Channel | None = None

    async def __aenter__(self) -> "QueueConsumer":
        try:
            self._channel = channel = await open_channel(self._connection)
            channel.closing.add_done_callback(lambda _: self.ended.set())
            channel.on_consumer_cancel_callbacks.add(lambda _: self.ended.set())
            await channel.basic_qos(prefetch_count=self._prefetch)
            for queue in self._queues:
                answer = await channel.basic_consume(queue, partial(self._on_message, queue))
                self._tags.append(answer.consumer_tag or "")
        except BaseException:
            # ``__aexit__`` is not called in this case, and an open channel would keep its deliveries.
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            with suppress(*BROKER_ERRORS):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._channel.close()

    async def stop_consuming(self) -> None:
        """Take no new deliveries. Those taken before can still be settled."""
        assert self._channel is not None
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for tag in self._tags:
                    await self._channel.basic_cancel(tag)

    async def _on_message(self, queue: str, message: aiormq.abc.DeliveredMessage) -> None:
        assert self._channel is not None
        self._deliver(Delivery(self._channel, message, queue))
