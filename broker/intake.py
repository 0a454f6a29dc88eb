"""Takes deliveries from the work queues over one channel, until it ends."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

import aiormq.abc

from jobtape.broker.channels import Channel, open_channel
from jobtape.broker.link import BROKER_ERRORS, Connection

CLOSE_TIMEOUT = 5.0


class Delivery:
    """A message from a work queue; it is settled once, on the channel that it came by."""

    def __init__(self, channel: Channel, message: aiormq.abc.DeliveredMessage, queue: str) -> None:
        properties = message.header.properties
        self.body = message.body
        self.headers: Mapping[str, Any] = properties.headers or {}
        self.message_id: str | None = properties.message_id
        self.queue = queue
        """The name that the queue it came from has on the broker."""
        self._tag = message.delivery_tag or 0
        self._channel = channel

    @property
    def is_ours(self) -> bool:
        """Whether it can still be settled; otherwise the broker has given it to somebody else."""
        return not self._channel.is_closed

    @property
    def count(self) -> int:
        """How often it was delivered before, in vain (RabbitMQ's quorum queues say that)."""
        count = self.headers.get("x-delivery-count", 0)
        return count if isinstance(count, int) else 0

    async def ack(self) -> None:
        """Done with it. When its channel is gone the broker delivers it again, and nothing can be done here."""
        with suppress(*BROKER_ERRORS):
            if not self._channel.is_closed:
                await self._channel.basic_ack(self._tag, wait=False)

    async def ack_all(self) -> None:
        """Done with it and with all that came before it by this channel."""
        with suppress(*BROKER_ERRORS):
            if not self._channel.is_closed:
                await self._channel.basic_ack(self._tag, multiple=True, wait=False)

    async def give_back(self) -> None:
        """Not begun: another worker may have it at once."""
        with suppress(*BROKER_ERRORS):
            if not self._channel.is_closed:
                await self._channel.basic_nack(self._tag, requeue=True, wait=False)

    async def refuse(self) -> None:
        """Begun, and could not be handled: it comes again, and this counts towards the queue's delivery limit on every
        version of RabbitMQ (4.3 does not count a nack).
        """
        with suppress(*BROKER_ERRORS):
            if not self._channel.is_closed:
                await self._channel.basic_reject(self._tag, requeue=True, wait=False)


class Intake:
    """``async with Intake(connection, queues, prefetch=12, deliver=…) as intake: await intake.ended.wait()``.

    ``deliver`` is called for each delivery, in their order. ``prefetch`` is for each queue.
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
        """Set when the channel is closed, or the broker has cancelled a consumer (its queue was deleted)."""
        self._connection = connection
        self._queues = queues
        self._prefetch = prefetch
        self._deliver = deliver
        self._tags: list[str] = []
        self._channel: Channel | None = None

    async def __aenter__(self) -> "Intake":
        """Begin to take. Raises one of ``BROKER_ERRORS``, also when a queue does not exist."""
        try:
            return await self._begin()
        except BaseException:
            # ``__aexit__`` is not called then, and what has been delivered would stay with us
            if self._channel is not None:
                await self.__aexit__(None, None, None)
            raise

    async def _begin(self) -> "Intake":
        self._channel = channel = await open_channel(self._connection)
        channel.closing.add_done_callback(lambda _: self.ended.set())
        channel.on_consumer_cancel_callbacks.add(lambda _: self.ended.set())
        await channel.basic_qos(prefetch_count=self._prefetch)
        for queue in self._queues:
            answer = await channel.basic_consume(queue, partial(self._on_message, queue))
            self._tags.append(answer.consumer_tag or "")
        return self

    async def stop_taking(self) -> None:
        """No new deliveries; those that are here can still be settled."""
        assert self._channel is not None
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for tag in self._tags:
                    await self._channel.basic_cancel(tag)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel: what isn't settled goes back to its queue."""
        assert self._channel is not None
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._channel.close()

    async def _on_message(self, queue: str, message: aiormq.abc.DeliveredMessage) -> None:
        assert self._channel is not None
        self._deliver(Delivery(self._channel, message, queue))
