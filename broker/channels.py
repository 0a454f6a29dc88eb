"""Opens channels, consumes over them, and publishes single messages.

The channels are aiormq's, opened on aio-pika's connection. aio-pika's own channels leave a callback and its objects
(4.5 KiB) on the connection when they are closed, because it removes the callback from a future of which aiormq makes
a new one for each caller (seen with aio-pika 10.2.1 and aiormq 7.2.4). A process that checks a queue every second would
grow by hundreds of megabytes a day.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, Final
from weakref import WeakKeyDictionary

from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from pamqp.common import FieldValue
from uuid_utils import uuid4

from jobtape.broker.frames import Delivered, DeliverySink, is_open
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, Transports
from jobtape.broker.tasks import finish_before_cancel

Channel = AbstractChannel
PERSISTENT: Final = 2
"""The delivery mode of messages that survive a restart of the broker."""
MOST_CHANNELS: Final = 65535
"""Channels of a connection where the broker sets no limit."""
_last_numbers: "WeakKeyDictionary[AbstractConnection, int]" = WeakKeyDictionary()
"""The number of the channel that was opened last on each connection."""
TRANSIENT: Final = 1
"""The delivery mode of messages that a restart of the broker drops."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds for closing a channel. A broker in an alarm reads nothing from a connection that publishes."""
SETUP_TIMEOUT: Final = 10.0
"""Seconds for declaring and consuming a queue of an exchange."""


class _WorkProperties(spec.Basic.Properties):
    """Properties without other headers than ``CC``: all but their id is marshalled once for many messages."""

    def marshal(self) -> bytes:
        headers: Mapping[str, Any] = self.headers or {}
        return _marshalled(self.content_type, *headers.get("CC", ())) + (self.message_id or "").encode()


@lru_cache(1024)
def _marshalled(content_type: str | None, *cc: str) -> bytes:
    """Return the properties up to the id, which comes last and has 32 characters."""
    headers: dict[str, FieldValue] = {"CC": list(cc)} if cc else {}
    id_of_any = "0" * 32
    properties = spec.Basic.Properties(
        content_type=content_type, headers=headers, delivery_mode=PERSISTENT, message_id=id_of_any
    )
    return properties.marshal().removesuffix(id_of_any.encode())


def message_properties(
    *, headers: Mapping[str, Any] | None = None, content_type: str | None = None
) -> spec.Basic.Properties:
    """Properties of a persistent message with a new id, by which a returned message is recognised."""
    made = spec.Basic.Properties if headers and tuple(headers) != ("CC",) else _WorkProperties
    # uuid_utils: Python's own uuid4 gives up the interpreter lock for each id, and then waits for busy threads.
    return made(
        content_type=content_type, headers=dict(headers or {}), delivery_mode=PERSISTENT, message_id=uuid4().hex
    )


async def open_channel(connection: Connection, *, confirms: bool = False) -> Channel:
    """Open a channel that the caller closes.

    With ``confirms`` a publish returns when the broker has confirmed it, and raises PublishError when a mandatory one
    was returned. Raises one of ``BROKER_ERRORS``.
    """
    transport = connection.transport
    if transport is None:
        raise ConnectionError("the connection was lost")
    # ``transport.ready()`` would wait for the end of an alarm, and forever if the connection is lost before.
    opened = transport.connection
    return await opened.channel(_free_number(opened), publisher_confirms=confirms, on_return_raises=confirms)


def _free_number(connection: AbstractConnection) -> int:
    """Return a number for a new channel: the one after the last that is not in use.

    aiormq would take the highest one that is free. It regards a number as free when the broker closes the channel, and
    answers the broker a moment later. If the next channel is opened in that moment, the broker closes the connection
    ("second 'channel.open' seen").
    """
    most = connection.connection_tune.channel_max or MOST_CHANNELS
    last = _last_numbers.get(connection, 0)
    for step in range(most):
        number = (last + step) % most + 1
        if number not in connection.channels:
            _last_numbers[connection] = number
            return number
    raise ConnectionError(f"all {most} channels of the connection are in use")


async def consume(
    connection: Connection,
    channel: Channel,
    queue: str,
    deliver: Callable[[list[Delivered]], None],
    *,
    arguments: dict[str, FieldValue] | None = None,
    no_ack: bool = False,
) -> str:
    """Consume ``queue`` over ``channel``, and return the consumer tag. ``deliver`` gets lists of deliveries, in order.

    Raises one of ``BROKER_ERRORS``.
    """
    if not is_open(channel):  # its number may belong to another channel already
        raise ConnectionError("the channel was closed")
    tag = uuid4().hex
    transports = getattr(connection, "kwargs", {}).get("transport_factory")
    reader = transports.reader if isinstance(transports, Transports) else None
    if reader is not None:
        sink = reader.sinks.get(channel.number)
        if sink is None or sink.channel is not channel:
            sink = reader.sinks[channel.number] = DeliverySink(channel)
        sink.consumers[tag.encode()] = deliver

    async def deliver_one(message: DeliveredMessage) -> None:
        # aiormq starts a task for each delivery, in order; this one never awaits, so the order is kept.
        raw = message.header.marshal()
        deliver([Delivered(message.delivery_tag or 0, message.routing_key or "", raw, message.body)])

    await channel.basic_consume(queue, deliver_one, consumer_tag=tag, no_ack=no_ack, arguments=arguments)
    return tag


@asynccontextmanager
async def channel(connection: Connection, *, confirms: bool = False) -> AsyncIterator[Channel]:
    """Open a channel as ``open_channel`` does, and close it at the end. Deliveries that are not settled by then go back
    to their queue.
    """
    opened = await open_channel(connection, confirms=confirms)
    try:
        yield opened
    finally:
        await close_channel(opened)


@asynccontextmanager
async def consuming_exchange(
    connection: Connection, exchange: str, deliver: Callable[[list[Delivered]], None], *, most: int
) -> AsyncIterator[asyncio.Event]:
    """Consume what is published to a fan-out exchange during the block, over a queue that is deleted with the
    connection and keeps ``most`` messages, the newest.

    Gives an event that is set when nothing comes any more, because the channel or its consumer has ended. Raises one of
    ``BROKER_ERRORS``.
    """
    async with channel(connection) as opened:
        ended = asyncio.Event()
        opened.closing.add_done_callback(lambda _: ended.set())
        opened.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        async with asyncio.timeout(SETUP_TIMEOUT):
            limits: dict[str, FieldValue] = {"x-queue-type": "classic", "x-max-length": most}
            declared = await opened.queue_declare(exclusive=True, auto_delete=True, arguments=limits)
            queue = declared.queue or ""
            await opened.queue_bind(queue, exchange)
            await consume(connection, opened, queue, deliver, no_ack=True)
        yield ended


async def publish_once(
    link: Link,
    body: bytes,
    *,
    exchange: str,
    key: str,
    properties: spec.Basic.Properties,
    timeout: float | None = None,
) -> None:
    """Publish one mandatory message over a new channel, and return when it is confirmed within ``timeout`` seconds.

    Raises PublishError when it reaches no queue, or another of ``BROKER_ERRORS``.
    """
    async with channel(await link.connection(), confirms=True) as opened, asyncio.timeout(timeout):
        await opened.basic_publish(body, exchange=exchange, routing_key=key, properties=properties, mandatory=True)


async def close_channel(channel: Channel) -> None:
    """Close a channel, which takes at most CLOSE_TIMEOUT. Errors are ignored: the broker has closed it then.

    A cancellation waits for the end of this: aiormq loses one that comes in the very step in which the channel closes.
    """
    await finish_before_cancel(_close(channel))


async def _close(channel: Channel) -> None:
    with suppress(*BROKER_ERRORS):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await channel.close()
