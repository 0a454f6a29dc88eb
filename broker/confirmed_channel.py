"""One channel that publishes to one exchange, confirmed, and is opened again with each new connection.

One exchange for one channel, since before RabbitMQ 4.0 a stream's leader change confuses the confirms of a channel that
publishes to several (rabbitmq-server#12236); and one channel for all messages, as each costs the broker a process.
"""

import asyncio
from contextlib import suppress
from typing import Final

import aiormq
import aiormq.exceptions
from aiormq import spec

from jobtape.broker.channels import open_channel
from jobtape.broker.link import BROKER_ERRORS, Connection, Link, lost_where_cancelled

PERSISTENT: Final = 2


class ConfirmedChannel:
    """Publishes to the exchange of that name (the default exchange: ``""``) over ``link``.

    ``renew``: open another channel after a refusal. On RabbitMQ 3.10 a queue that has refused a channel's message goes
    on to refuse them by that channel when its limit is lifted, or it is purged (*tried*); a fresh one is not affected.
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
        """Returns when every queue that it was routed to has it; waits for connection and confirm as long as it takes.

        Calls that began one after the other send in that order. A ``mandatory`` message needs a ``message_id`` of its
        own, by which aiormq matches what is returned.

        Raises aiormq's PublishError when it is mandatory and no queue was there, its DeliveryError when a queue refused
        it, others of ``BROKER_ERRORS`` when channel or connection were lost: then it is not known who has it.
        """
        with lost_where_cancelled():
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
                assert isinstance(channel, aiormq.Channel)  # its wait=False is not in the abstract class
                waiting: set[asyncio.Timeout] = set()
                self._waiting = waiting
                channel.closing.add_done_callback(lambda _: _wake(waiting))
                self._channel = channel
                self._connection = connection
            return self._channel


async def _close(channel: aiormq.Channel) -> None:
    with suppress(*BROKER_ERRORS):
        await channel.close()


def _wake(waiting: set[asyncio.Timeout]) -> None:
    # A publish that waits for room in aiormq's write queue is not woken when the connection goes: end them here.
    now = asyncio.get_running_loop().time()
    for attempt in tuple(waiting):
        if attempt.when() is None:
            attempt.reschedule(now)
