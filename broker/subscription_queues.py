"""The queues of subscriptions on the broker: made, bound, looked at, removed."""

from collections.abc import Iterable

import aiormq.exceptions

from jobtape.broker import declare
from jobtape.broker.channels import channel
from jobtape.broker.declare import Depth
from jobtape.broker.link import Connection
from jobtape.schemas.errors import SubscriptionRefused
from jobtape.schemas.topology import Exchange, Queue


async def declare_bound(connection: Connection, exchange: Exchange, queue: Queue, keys: Iterable[str]) -> Depth | None:
    """Make ``queue`` and bind it to ``exchange`` where that is not done yet; how full it was, None when it was not
    there.

    Raises SubscriptionRefused when it is there with another filter or other limits, one of ``BROKER_ERRORS`` while it
    cannot be reached.
    """
    before = await declare.depth(connection, queue.name)
    try:
        async with channel(connection) as opened:
            await opened.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True)
            await opened.queue_declare(queue.name, durable=True, arguments=queue.declared_arguments())
            for key in keys:
                await opened.queue_bind(queue.name, exchange.name, key)
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        raise SubscriptionRefused(
            f"the subscription of this name has another filter or other limits ({error}): give the same ones, choose "
            "another name, or remove it with all that waits on it (`jobtape subscriptions remove NAME`)"
        ) from None
    return before


async def delete(connection: Connection, queue: str) -> int | None:
    """Remove a queue; how many messages were on it, None when it was not there."""
    before = await declare.depth(connection, queue)
    async with channel(connection) as opened:
        await opened.queue_delete(queue)
    return None if before is None else before.messages
