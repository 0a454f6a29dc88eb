"""Declares a topology, looks at what is there, and removes a namespace."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import aio_pika
import aiormq.exceptions

from jobtape.broker.channels import Channel, channel
from jobtape.broker.link import Connection
from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job_types.job_type import BUILTIN_QUEUE
from jobtape.schemas.topology import Binding, Exchange, Queue, Topology

NOT_FOUND = (aiormq.exceptions.ChannelNotFoundEntity,)


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages wait on a queue, and how many consumers it has."""

    messages: int
    consumers: int


async def declare(connection: Connection, topology: Topology) -> None:
    """Declare everything but the tape; what exists already stays as it is.

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
            for passage in topology.passages():
                await opened.exchange_bind(passage.target, passage.source, passage.key)
            if await log_exists(connection, topology):
                # The tape may have been there before its exchange: a broker restored in part.
                await _bind(opened, topology.log_binding)
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        raise JobtapeError(
            f"the broker has something of ours with other properties: {error}. "
            "Delete it there, or choose another JOBTAPE_NAMESPACE"
        ) from None


async def create_log(connection: Connection, topology: Topology) -> bool:
    """Create the tape when it isn't there. True when it was created; an existing one is left as it is."""
    if await log_exists(connection, topology):
        return False
    async with channel(connection) as opened:
        await _exchange(opened, topology.events)
        await _queue(opened, topology.log)
        await _bind(opened, topology.log_binding)
    return True


async def declare_results(connection: Connection, topology: Topology) -> None:
    """Declare the exchange that subscribers bind to, and nothing else."""
    async with channel(connection) as opened:
        await _exchange(opened, topology.results)


async def log_exists(connection: Connection, topology: Topology) -> bool:
    """Whether the tape is on the broker (a passive declaration)."""
    return await depth(connection, topology.log.name) is not None


async def depth(connection: Connection, queue: str) -> Depth | None:
    """How full a queue is (a passive declaration), or None when it does not exist.

    Raises aiormq's error when it exists and has no leader at the moment, ConnectionError when the connection is lost.
    It may be cancelled, and then comes to its end by itself: where aiormq is cancelled in a call, it may use the
    channel's number wrongly, and the broker ends the whole connection ("second 'channel.open' seen", *tried*).
    """
    look = asyncio.create_task(_depth(connection, queue), name=f"look at {queue}")
    look.add_done_callback(_take_error)
    await asyncio.wait({look})
    if look.cancelled():  # by aiormq, which does that to whatever waits for an answer when the connection goes
        raise ConnectionError("the connection was lost")
    return look.result()


async def _depth(connection: Connection, queue: str) -> Depth | None:
    try:
        async with channel(connection) as opened:
            answer = await opened.queue_declare(queue, passive=True)
    except NOT_FOUND as error:
        if is_missing(error):
            return None
        raise
    return Depth(answer.message_count or 0, answer.consumer_count or 0)


def _take_error(look: "asyncio.Task[Depth | None]") -> None:
    """Nobody may wait for it any more, and asyncio is not to report its error as lost."""
    if not look.cancelled():
        look.exception()


def is_missing(error: BaseException) -> bool:
    """Whether a queue that was not found isn't there. For some seconds after its start the broker says "not found" too
    of a queue that has no leader yet: its home node "is down or inaccessible".
    """
    return isinstance(error, NOT_FOUND) and "inaccessible" not in str(error)


async def remove_namespace(url: str, topology: Topology) -> None:
    """Delete every queue and exchange of ``topology``, that of the built-in jobs too, and nothing else."""
    topology = topology.with_queues((*topology.queues, BUILTIN_QUEUE))
    connection = await aio_pika.connect(url)
    async with connection, channel(connection) as opened:
        for queue in (*topology.declared_queues(), topology.log):
            await opened.queue_delete(queue.name)
        for exchange in topology.exchanges():
            await opened.exchange_delete(exchange.name)


def queue_names(queues: Iterable[str], topology: Topology) -> dict[str, str]:
    """Our name of each queue -> its name on the broker."""
    return {queue: topology.work_queue(queue).name for queue in queues}


async def _exchange(opened: Channel, exchange: Exchange) -> None:
    await opened.exchange_declare(
        exchange.name,
        exchange_type=exchange.type,
        durable=True,
        arguments={"alternate-exchange": exchange.alternate} if exchange.alternate else None,
    )


async def _queue(opened: Channel, queue: Queue) -> None:
    await opened.queue_declare(queue.name, durable=True, arguments=queue.declared_arguments())


async def _bind(opened: Channel, binding: Binding) -> None:
    await opened.queue_bind(binding.queue, binding.exchange, binding.key)
