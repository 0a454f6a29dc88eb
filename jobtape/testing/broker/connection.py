"""Connections and channels to the broker in memory, with those parts of aio-pika's and aiormq's that Jobtape uses.

The publishing and settling code of ``jobtape.broker`` writes frames, in bulk. So a channel reads frames from its
``write_queue``, as a broker would, and answers with frames: ``jobtape.broker`` runs as it does over a socket.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Final, cast

import aiormq.exceptions
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader

from jobtape.broker.link import Connection
from jobtape.testing.broker.broker import MemoryBroker, detach
from jobtape.testing.broker.queues import Consumer, Message, Queue, Stream

log = logging.getLogger(__name__)

_FRAME_SIZE: Final = 131_072 - 8
_MOST_CHANNELS: Final = 2047
_NOT_IMPLEMENTED: Final = 540
"""AMQP's code of this error."""

OnDelivery = Callable[[Any], Awaitable[None]]


class MemoryConnection:
    """A connection of one event loop to ``broker``."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.loop = asyncio.get_running_loop()
        self.is_closed = False
        self.close_callbacks: set[Callable[..., object]] = set()
        self.channels: dict[int, MemoryChannel] = {}
        self.connection_tune = SimpleNamespace(channel_max=_MOST_CHANNELS)
        # aio-pika's connection has aiormq's behind this; here they are one.
        self.transport = SimpleNamespace(connection=self)

    async def channel(
        self, number: int, *, publisher_confirms: bool = False, on_return_raises: bool = False
    ) -> "MemoryChannel":
        """Open a channel."""
        del on_return_raises
        opened = self.channels[number] = MemoryChannel(self, number, confirms=publisher_confirms)
        return opened

    async def close(self) -> None:
        """Close all channels."""
        if self.is_closed:
            return
        self.is_closed = True
        for channel in list(self.channels.values()):
            await channel.close()
        for callback in list(self.close_callbacks):
            callback(self, None)


class MemoryChannel:
    """A channel. ``confirms``: publishes are confirmed."""

    def __init__(self, connection: MemoryConnection, number: int, *, confirms: bool) -> None:
        self.connection = connection
        self.number = number
        self.is_closed = False
        self.closing: asyncio.Future[None] = connection.loop.create_future()
        self.on_consumer_cancel_callbacks: set[Callable[..., object]] = set()
        self.max_content_size = _FRAME_SIZE
        self.delivery_tag = 0
        """Of the last publish; ``jobtape.broker`` counts it."""
        self.write_queue = _Writes(self)
        self._broker = connection.broker
        self._confirms = confirms
        self._consumers: dict[str, Consumer] = {}
        self._prefetch = 0
        self._last_tag = 0
        self._publish: Basic.Publish | None = None
        self._header: ContentHeader | None = None
        self._body = b""
        self._published = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._returned: list[Message] = []
        self._on_confirm_frame: Callable[[Any], Awaitable[None]]
        self._on_return_frame: Callable[[Any], Awaitable[None]]

    async def close(self) -> None:
        """Close the channel. Deliveries that are not settled return to their queues."""
        self._close(None)

    def _close(self, error: Exception | None) -> None:
        """Close the channel. ``error``: why the broker closes it."""
        if self.is_closed:
            return
        self.is_closed = True
        self.connection.channels.pop(self.number, None)
        with self._broker.lock:
            for consumer in self._consumers.values():
                detach(self._broker, consumer)
            self._consumers.clear()
        if self.closing.done():
            return
        if error is None:
            self.closing.set_result(None)
        else:
            self.closing.set_exception(error)
            self.closing.exception()  # whoever waits gets it; nobody has to

    async def exchange_declare(
        self, exchange: str, *, exchange_type: str = "", passive: bool = False, durable: bool = False
    ) -> None:
        """Declare an exchange. Raises ChannelNotFoundEntity for a ``passive`` one that is not there."""
        del durable
        with self._broker.lock:
            if not passive:
                self._broker.declare_exchange(exchange, exchange_type)
                return
            found = self._broker.has_exchange(exchange)
        if not found:
            await self.close()
            raise aiormq.exceptions.ChannelNotFoundEntity(f"NOT_FOUND - no exchange '{exchange}'")

    async def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> Any:
        """Declare a queue, and return its name and depth. Raises ChannelNotFoundEntity for a ``passive`` one that is
        not there.
        """
        del durable, exclusive
        with self._broker.lock:
            if passive and queue not in self._broker.queues:
                await self.close()
                raise aiormq.exceptions.ChannelNotFoundEntity(f"NOT_FOUND - no queue '{queue}'")
            found = self._broker.declare_queue(queue, arguments or {}, auto_delete=auto_delete)
            waiting = len(found.messages)
            return SimpleNamespace(queue=found.name, message_count=waiting, consumer_count=len(found.consumers))

    async def queue_bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Bind a queue."""
        with self._broker.lock:
            self._broker.bind(queue, exchange, routing_key)

    async def queue_delete(self, queue: str) -> None:
        """Delete a queue."""
        with self._broker.lock:
            self._broker.delete_queue(queue)

    async def basic_qos(self, *, prefetch_count: int) -> None:
        """Let each consumer that is made from now on have so many deliveries."""
        self._prefetch = prefetch_count

    async def basic_consume(
        self,
        queue: str,
        callback: OnDelivery,
        *,
        consumer_tag: str,
        no_ack: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Consume a queue. Raises ChannelNotFoundEntity."""
        with self._broker.lock:
            found = self._broker.queues.get(queue)
            if found is None:
                await self.close()
                raise aiormq.exceptions.ChannelNotFoundEntity(f"NOT_FOUND - no queue '{queue}'")
            prefetch = 0 if no_ack else self._prefetch

            def deliver(_: Consumer, tag: int, message: Message) -> None:
                self.connection.loop.call_soon_threadsafe(self._deliver, callback, tag, message)

            consumer = Consumer(found, self._next_tag, deliver, prefetch, no_ack)
            self._consumers[consumer_tag] = consumer
            if isinstance(found, Stream):
                found.start(consumer, (arguments or {}).get("x-stream-offset", "first"))
            found.consumers.append(consumer)
            found.deliver()

    async def basic_cancel(self, consumer_tag: str) -> None:
        """Deliver nothing more to a consumer. What it has can still be settled."""
        with self._broker.lock:
            consumer = self._consumers[consumer_tag]
            if consumer in consumer.queue.consumers and isinstance(consumer.queue, Queue):
                consumer.prefetch = -1  # it stays, so that what is not settled is known

    async def basic_ack(self, delivery_tag: int, *, multiple: bool = False, wait: bool = True) -> None:
        """Acknowledge one delivery, or all up to it."""
        del wait
        self._settle(delivery_tag, multiple=multiple)

    async def basic_publish(
        self, body: bytes, *, exchange: str, routing_key: str, properties: Basic.Properties, mandatory: bool = False
    ) -> None:
        """Publish a message. Raises PublishError when a ``mandatory`` one reaches no queue."""
        message = _message(routing_key, properties, body)
        with self._broker.lock:
            routed = self._broker.publish(exchange, routing_key, message)
        if mandatory and not routed:
            frame = Basic.Return(312, "NO_ROUTE", exchange, routing_key)
            raise aiormq.exceptions.PublishError(cast("Any", SimpleNamespace(delivery=frame)), frame)

    def take(self, data: bytes) -> None:
        """Take frames that were written to the connection."""
        with self._broker.lock:
            while data and not self.is_closed:
                consumed, _, frame = unmarshal(data)
                data = data[consumed:]
                self._take(frame)

    def _take(self, frame: Any) -> None:
        match frame:
            case Basic.Publish():
                self._publish, self._body = frame, b""
            case ContentHeader():
                self._header = frame
                if not frame.body_size:
                    self._end_publish()
            case ContentBody():
                self._body += frame.value
                if self._header is not None and len(self._body) >= (self._header.body_size or 0):
                    self._end_publish()
            case Basic.Ack():
                self._settle(frame.delivery_tag or 0, multiple=frame.multiple)
            case Basic.Nack():
                self._settle(frame.delivery_tag or 0, requeue=True)
            case Basic.Reject():
                self._settle(frame.delivery_tag or 0, requeue=True, failed=True)
            case _:
                why = f"NOT_IMPLEMENTED - the broker in memory does not know {frame!r}: please report this"
                log.error("channel %d is closed: %s", self.number, why)
                self._close(aiormq.exceptions.ChannelClosed(_NOT_IMPLEMENTED, why))

    def _end_publish(self) -> None:
        publish, header = self._publish, self._header
        assert publish is not None and header is not None
        self._publish = self._header = None
        self._published += 1
        message = _message(publish.routing_key or "", header.properties, self._body)
        routed = self._broker.publish(publish.exchange or "", publish.routing_key or "", message)
        if not self._confirms:
            return
        if publish.mandatory and not routed:
            self._returned.append(message)
            self._call(
                self._on_return_frame(Basic.Return(312, "NO_ROUTE", publish.exchange or "", publish.routing_key or ""))
            )
        self._call(self._on_confirm_frame(Basic.Ack(self._published)))

    async def _get_frame(self) -> ContentHeader:
        """Return the header of the message that is being returned."""
        message = self._returned[0]
        return ContentHeader(0, len(message.body), message.properties)

    async def _read_content(self, frame: Basic.Return, header: ContentHeader) -> Any:
        """Return the message that is being returned."""
        message = self._returned.pop(0)
        return SimpleNamespace(delivery=frame, header=header, body=message.body)

    def _settle(self, tag: int, *, multiple: bool = False, requeue: bool = False, failed: bool = False) -> None:
        with self._broker.lock:
            for consumer in list(self._consumers.values()):
                for each in [each for each in consumer.open if each == tag or (multiple and each < tag)]:
                    consumer.queue.settle(consumer, each, requeue=requeue, failed=failed)

    def _next_tag(self) -> int:
        self._last_tag += 1
        return self._last_tag

    def _deliver(self, callback: OnDelivery, tag: int, message: Message) -> None:
        if not self.is_closed:
            header = ContentHeader(0, len(message.body), message.properties)
            delivered = SimpleNamespace(header=header, delivery_tag=tag, routing_key=message.keys[0], body=message.body)
            self._call(callback(delivered))

    def _call(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = self.connection.loop.create_task(cast("Any", work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Writes:
    """What stands for aiormq's queue of frames that are to be written. It always has room."""

    def __init__(self, channel: MemoryChannel) -> None:
        self._channel = channel

    def put_nowait(self, frame: ChannelFrame) -> None:
        self._channel.take(frame.payload)


def _message(key: str, properties: Basic.Properties, body: bytes) -> Message:
    cc = (properties.headers or {}).get("CC") or ()
    return Message(body, (key, *(str(each) for each in cast("Any", cc))), properties)


def connect(broker: MemoryBroker) -> Connection:
    """Return a new connection of the running event loop to ``broker``."""
    return cast("Connection", MemoryConnection(broker))
