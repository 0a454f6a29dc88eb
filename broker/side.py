"""Publishes to one exchange other than the tape's, confirmed, over one channel that stays open."""

import asyncio
from collections.abc import Mapping
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, HeadersType

from jobtape.broker.link import BROKER_ERRORS, Connection, Link, reason_of
from jobtape.schemas.errors import BrokerUnavailable

CONFIRM_TIMEOUT = 10.0


class SideChannel:
    """Publishes to the exchange of that name (the default exchange: ``""``) over ``link``.

    One exchange, one channel: before RabbitMQ 4.0 a stream's leader change confuses the confirms of a channel that
    publishes to several (rabbitmq-server#12236). One channel for all messages, as each costs the broker a process.
    """

    def __init__(self, link: Link, exchange: str) -> None:
        self._link = link
        self._exchange = exchange
        self._opening = asyncio.Lock()
        self._channel: AbstractChannel | None = None
        self._connection: Connection | None = None

    async def publish(
        self, body: bytes, key: str, *, headers: Mapping[str, str | int] | None = None, content_type: str | None = None
    ) -> None:
        """Returns when every queue that it was routed to has it. Raises BrokerUnavailable when no confirm came within
        10 s, or no queue was there: then it is not known whether somebody has it.
        """
        carried: HeadersType = dict(headers or {})
        message = aio_pika.Message(
            body,
            headers=carried,
            content_type=content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            # aiormq matches a returned message by its id, so each publish has its own
            message_id=uuid4().hex,
        )
        trouble: str
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                channel = await self._open()
                name = self._exchange
                exchange = await channel.get_exchange(name, ensure=False) if name else channel.default_exchange
                await exchange.publish(message, key, mandatory=True)
                return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            trouble = "the connection was lost before the confirm"  # aiormq cancels who waits for one
        except BROKER_ERRORS as error:
            trouble = reason_of(error)
        raise BrokerUnavailable(
            f"not confirmed by the exchange {self._exchange!r}: {self._link.trouble or trouble}; try again"
        )

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            connection = await self._link.connection()
            if self._channel is None or self._channel.is_closed or self._connection is not connection:
                self._channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                self._connection = connection
            return self._channel
