"""Opens channels, and publishes over them with confirms.

The channels are aiormq's, opened on aio-pika's connection. aio-pika's own channels leave a callback and its objects
(4.5 KiB) on the connection when they are closed, because it removes the callback from a future that aiormq makes anew
for each caller (seen with aio-pika 10.2.1 and aiormq 7.2.4). A process that checks a queue every second would grow by
hundreds of megabytes a day.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import uuid4

import aiormq
import aiormq.exceptions
from aiormq import spec
from aiormq.abc import AbstractChannel

from jobtape.broker.link import BROKER_ERRORS, Connection, Link
from jobtape.broker.tasks import translate_cancellation

Channel = AbstractChannel
PERSISTENT: Final = 2


def message_properties(
    *, headers: Mapping[str, Any] | None = None, content_type: str | None = None
) -> spec.Basic.Properties:
    """Properties of a persistent message with a new id: aiormq finds the publish of a returned message by its id."""
    return spec.Basic.Properties(
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
    # ``transport.ready()`` would wait for the end of an alarm, and for ever if the connection is lost before.
    return await transport.connection.channel(publisher_confirms=confirms, on_return_raises=confirms)


@asynccontextmanager
async def channel(connection: Connection, *, confirms: bool = False) -> AsyncIterator[Channel]:
    """Open a channel as ``open_channel`` does, and close it at the end. Deliveries that are not settled by then go back
    to their queue.
    """
    opened = await open_channel(connection, confirms=confirms)
    try:
        yield opened
    finally:
        await _close(opened)


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


class ConfirmedChannel:
    """A channel that publishes to one exchange (``""`` is the default exchange) with confirms. It is opened again on
    each new connection of ``link``.

    It has one exchange, because before RabbitMQ 4.0 a change of a stream's leader confuses the confirms of a channel
    that publishes to several (rabbitmq-server#12236). It is kept open, because each channel costs the broker a process.

    ``renew``: open another channel after a queue has refused a message. On RabbitMQ 3.10 that queue goes on refusing
    messages of the same channel after its limit is lifted or it is purged.
    """

    def __init__(self, link: Link, exchange: str, *, renew: bool = False) -> None:
        self.link = link
        self.exchange = exchange
        self._renew = renew
        self._closing: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._channel: aiormq.Channel | None = None
        self._connection: Connection | None = None
        self._waiting: set[asyncio.Timeout] = set()

    async def publish(self, body: bytes, key: str, properties: spec.Basic.Properties, *, mandatory: bool) -> None:
        """Publish, and return when every queue that the message was routed to has it. There is no time limit on the
        connection or the confirm. Messages are sent in the order of the calls.

        A ``mandatory`` message needs a unique ``message_id``. Raises aiormq's PublishError when it is mandatory and no
        queue is bound, DeliveryError when a queue refused it, and others of ``BROKER_ERRORS`` when the channel or the
        connection was lost: then it is not known who has it.
        """
        with translate_cancellation():
            channel = await self._open()
            waiting = self._waiting
            async with asyncio.timeout(None) as lost:
                waiting.add(lost)
                try:
                    await channel.basic_publish(
                        body,
                        exchange=self.exchange,
                        routing_key=key,
                        properties=properties,
                        mandatory=mandatory,
                        wait=False,
                    )
                except aiormq.exceptions.DeliveryError as error:
                    refused = not isinstance(error, aiormq.exceptions.PublishError)
                    if self._renew and refused and self._channel is channel:
                        self._channel = None
                    raise
                finally:
                    waiting.discard(lost)
                    if not waiting and self._channel is not channel and not channel.is_closed:
                        closing = asyncio.create_task(_close(channel))
                        self._closing.add(closing)
                        closing.add_done_callback(self._closing.discard)

    async def _open(self) -> aiormq.Channel:
        if self._channel is not None and not self._channel.is_closed and self.link.up:
            return self._channel
        async with self._opening:
            connection = await self.link.connection()
            if self._channel is None or self._channel.is_closed or self._connection is not connection:
                channel = await open_channel(connection, confirms=True)
                assert isinstance(channel, aiormq.Channel)  # the abstract class has no ``wait`` argument
                waiting: set[asyncio.Timeout] = set()
                self._waiting = waiting
                channel.closing.add_done_callback(lambda _: _end_now(waiting))
                self._channel = channel
                self._connection = connection
            return self._channel


async def publish_all(publishes: Sequence[Coroutine[Any, Any, None]], timeout: float) -> list[BaseException | None]:
    """Run ``publishes`` concurrently. Return in their order what each one raised, None for a confirmed one.

    When none of them ends for ``timeout`` seconds, the rest is cancelled, and its outcome is a CancelledError.
    """
    clock = asyncio.get_running_loop().time
    last = clock()

    def note_end(_: "asyncio.Task[None]") -> None:
        nonlocal last
        last = clock()

    tasks = [asyncio.create_task(publish) for publish in publishes]
    for task in tasks:
        task.add_done_callback(note_end)
    pending = set(tasks)
    try:
        while pending and (left := last + timeout - clock()) > 0:
            _, pending = await asyncio.wait(pending, timeout=left)
    finally:
        for task in pending:
            task.cancel()
    return list(await asyncio.gather(*tasks, return_exceptions=True))


async def _close(channel: Channel) -> None:
    with suppress(*BROKER_ERRORS):
        await channel.close()


def _end_now(waiting: set[asyncio.Timeout]) -> None:
    # aiormq does not wake a publish that waits for room in its write queue when the connection is lost.
    now = asyncio.get_running_loop().time()
    for publish in tuple(waiting):
        if publish.when() is None:
            publish.reschedule(now)
