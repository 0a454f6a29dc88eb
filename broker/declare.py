"""Declares exchanges, queues and bindings, checks queues, and deletes them."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aiormq.exceptions

from jobtape.broker.channels import Channel, channel
from jobtape.broker.link import Connection, connected
from jobtape.broker.tasks import ignore_error, translate_cancellation
from jobtape.schemas.errors import JobtapeError, SubscriptionRefused
from jobtape.schemas.job_types.job_type import RESERVED_QUEUES
from jobtape.schemas.topology import Binding, Exchange, Queue, Topology, work_key

T = TypeVar("T")
REMOVE_TIMEOUT: Final = 60.0
"""Seconds that removing a namespace may take."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages wait on a queue, and how many consumers it has."""

    messages: int
    consumers: int


async def declare(connection: Connection, topology: Topology) -> None:
    """Declare everything except the tape. What exists already stays as it is.

    Raises JobtapeError when something of the same name exists with other properties.
    """
    try:
        async with channel(connection) as opened:
            for exchange in topology.exchanges():
                await _exchange(opened, exchange)
            for queue in topology.declared_queues():
                await _queue(opened, queue)
            for binding in topology.bindings():
                await _bind(opened, binding)
            if await log_exists(connection, topology):
                # A broker that was restored in part may have had the tape before its exchange.
                await _bind_log(opened, topology)
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        raise JobtapeError(
            f"the broker has a queue or exchange of this name with other properties: {error}. "
            "Delete it there, or choose another JOBTAPE_NAMESPACE"
        ) from None


async def bind_work_queue(connection: Connection, topology: Topology, queue: str) -> None:
    """Bind a work queue that exists. Raises and is cancelled as ``depth``."""
    await _not_cancelled(_bind_work_queue(connection, topology, queue))


async def _bind_work_queue(connection: Connection, topology: Topology, queue: str) -> None:
    async with channel(connection) as opened:
        await _bind(opened, Binding(topology.work_queue(queue).name, topology.events.name, work_key(queue)))


async def create_log(connection: Connection, topology: Topology) -> bool:
    """Create the tape if it does not exist. Return whether it was created."""
    if await log_exists(connection, topology):
        return False
    async with channel(connection) as opened:
        await _exchange(opened, topology.events)
        await _queue(opened, topology.log)
        await _bind_log(opened, topology)
    return True


async def declare_results(connection: Connection, topology: Topology) -> None:
    """Declare only the exchange that subscribers bind to."""
    async with channel(connection) as opened:
        await _exchange(opened, topology.results)


async def declare_subscription(
    connection: Connection, exchange: Exchange, queue: Queue, keys: Iterable[str]
) -> Depth | None:
    """Declare a subscription's ``queue`` and bind it to ``exchange`` with ``keys``. Return its depth before, or None
    when it did not exist.

    Raises SubscriptionRefused when it exists with another filter or other limits, or one of ``BROKER_ERRORS``.
    """
    before = await depth(connection, queue.name)
    try:
        await _ensure_exchange(connection, exchange)
        async with channel(connection) as opened:
            await _queue(opened, queue)
            for key in keys:
                await _bind(opened, Binding(queue.name, exchange.name, key))
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        raise SubscriptionRefused(
            f"the subscription of this name has another filter or other limits ({error}): use the same ones, choose "
            "another name, or remove it with all its waiting messages (`jobtape subscriptions remove NAME`)"
        ) from None
    return before


async def delete_queue(connection: Connection, queue: str) -> int | None:
    """Delete a queue. Return how many messages were on it, or None when it did not exist."""
    before = await depth(connection, queue)
    async with channel(connection) as opened:
        await opened.queue_delete(queue)
    return None if before is None else before.messages


async def log_exists(connection: Connection, topology: Topology) -> bool:
    """Return whether the tape is on the broker. Raises as ``depth`` does."""
    return await depth(connection, topology.log.name) is not None


async def depth(connection: Connection, queue: str) -> Depth | None:
    """Return the depth of a queue, by a passive declaration; None when the queue does not exist.

    Raises aiormq's error when it exists and has no leader at the moment, ConnectionError when the connection is lost.
    A cancelled call goes on in the background: aiormq may reuse the number of a channel that was cancelled while it
    was opened, and then the broker closes the connection ("second 'channel.open' seen").
    """
    return await _not_cancelled(_depth(connection, queue))


async def _not_cancelled(call: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``call``, which goes on in the background when the caller is cancelled."""
    task = asyncio.ensure_future(call)
    task.add_done_callback(ignore_error)  # a caller that was cancelled does not read it
    with translate_cancellation():
        return await asyncio.shield(task)


async def _depth(connection: Connection, queue: str) -> Depth | None:
    try:
        async with channel(connection) as opened:
            answer = await opened.queue_declare(queue, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity as error:
        if is_missing(error):
            return None
        raise
    return Depth(answer.message_count or 0, answer.consumer_count or 0)


def is_missing(error: aiormq.exceptions.ChannelNotFoundEntity) -> bool:
    """Return whether a queue that was not found does not exist. For some seconds after its start the broker also
    answers "not found" for a queue without a leader: its home node "is down or inaccessible".
    """
    return "inaccessible" not in str(error)


async def remove_namespace(url: str, topology: Topology, also: Iterable[str] = ()) -> None:
    """Delete every queue and exchange of ``topology``, the queues of the built-in jobs, and the queues ``also``.

    Raises JobtapeError when the user may not delete them, and BrokerUnavailable.
    """
    queues = {queue.name for queue in all_queues(topology)} | set(also)
    try:
        async with connected(url, REMOVE_TIMEOUT) as connection, channel(connection) as opened:
            for name in sorted(queues):
                await opened.queue_delete(name)
            for exchange in topology.exchanges():
                await opened.exchange_delete(exchange.name)
    except aiormq.exceptions.ChannelAccessRefused as error:
        raise JobtapeError(f"{error}: use a user in RABBITMQ_URL that may configure the namespace") from None


def all_queues(topology: Topology) -> tuple[Queue, ...]:
    """Return the queues of ``topology``, with those of the built-in jobs and the tape."""
    whole = topology.with_queues((*topology.queues, *RESERVED_QUEUES))
    return (*whole.declared_queues(), whole.log)


async def _ensure_exchange(connection: Connection, exchange: Exchange) -> None:
    """Declare an exchange that does not exist. If it does, the user needs no permission to configure it."""
    try:
        async with channel(connection) as opened:
            await opened.exchange_declare(exchange.name, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        async with channel(connection) as opened:
            await _exchange(opened, exchange)


async def _exchange(opened: Channel, exchange: Exchange) -> None:
    await opened.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True)


async def _queue(opened: Channel, queue: Queue) -> None:
    await opened.queue_declare(queue.name, durable=True, arguments=queue.declared_arguments())


async def _bind_log(opened: Channel, topology: Topology) -> None:
    for binding in topology.log_bindings:
        await _bind(opened, binding)


async def _bind(opened: Channel, binding: Binding) -> None:
    await opened.queue_bind(binding.queue, binding.exchange, binding.key)
