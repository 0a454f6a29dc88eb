"""The queues of subscriptions on the broker: made, bound, looked at, removed."""

from collections.abc import Iterable

import aiormq.exceptions

from jobtape.broker import declare
from jobtape.broker.declare import Depth
from jobtape.broker.link import Connection
from jobtape.schemas.errors import SubscriptionRefused
from jobtape.schemas.topology import Exchange, Queue


async def declare_bound(connection: Connection, exchange: Exchange, queue: Queue, keys: Iterable[str]) -> Depth | None:
    """Make ``queue`` and bind it to ``exchange`` where that is not done yet; how full it was, None when it was not
    there.

    Raises SubscriptionRefused when it is there with another filter or other limits, aio-pika's errors while it cannot
    be reached.
    """
    before = await declare.depth(connection, queue.name)
    channel = await connection.channel(publisher_confirms=False)
    under = await channel.get_underlay_channel()
    try:
        await under.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True)
        await under.queue_declare(queue.name, durable=True, arguments=queue.declared_arguments())
        for key in keys:
            await under.queue_bind(queue.name, exchange.name, key)
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        raise SubscriptionRefused(
            f"the subscription of this name has another filter or other limits ({error}): give the same ones, choose "
            "another name, or remove it with all that waits on it (`jobtape subscriptions remove NAME`)"
        ) from None
    finally:
        if not channel.is_closed:
            await channel.close()
    return before


async def delete(connection: Connection, queue: str) -> int | None:
    """Remove a queue; how many messages were on it, None when it was not there."""
    before = await declare.depth(connection, queue)
    channel = await connection.channel(publisher_confirms=False)
    try:
        under = await channel.get_underlay_channel()
        await under.queue_delete(queue)
    finally:
        if not channel.is_closed:
            await channel.close()
    return None if before is None else before.messages
