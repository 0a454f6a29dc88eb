"""Puts a message aside that nobody can work on, with the reason."""

from uuid import uuid4

import aio_pika

from jobtape.broker.link import Link
from jobtape.schemas.topology import Topology

REASON_HEADER = "jobtape-reason"


async def bury(link: Link, topology: Topology, body: bytes, reason: str) -> None:
    """Publish ``body`` to the dead exchange, confirmed. Raises what aio-pika raises.

    On a channel of its own: the publisher's channel publishes to one exchange only. Headers are not copied: ``CC``
    and ``x-death`` would send it on its way again.
    """
    connection = await link.connection()
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    async with channel:
        exchange = await channel.get_exchange(topology.dead.name, ensure=False)
        message = aio_pika.Message(
            body,
            headers={REASON_HEADER: reason[:500]},
            message_id=uuid4().hex,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, routing_key="no-job", mandatory=True)
