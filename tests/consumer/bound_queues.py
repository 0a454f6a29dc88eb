"""Queues bound to ``<ns>.results``, to see what the relay publishes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from jobtape.broker import declare
from jobtape.broker.link import Connection
from jobtape.schemas.messages.delivered_event import decode_delivered
from jobtape.schemas.topology import Topology

T = TypeVar("T")


class Listener:
    """``messages``: what was received so far, in order."""

    def __init__(self) -> None:
        self.messages: list[AbstractIncomingMessage] = []

    async def note(self, message: AbstractIncomingMessage) -> None:
        self.messages.append(message)

    @property
    def ids(self) -> list[str]:
        """Ids of the events."""
        return [message.message_id or "" for message in self.messages]

    @property
    def names(self) -> list[str]:
        """Names of the events."""
        return [message.type or "" for message in self.messages]

    @property
    def cursors(self) -> list[int]:
        """Cursors of the events."""
        return [decode_delivered(message.body).cursor for message in self.messages]

    def of(self, job_id: str) -> list[str]:
        """Names of the job's events."""
        return [message.type or "" for message in self.messages if message.headers["job"] == job_id]


@asynccontextmanager
async def listening(url: str, topology: Topology, *keys: str) -> AsyncIterator[Listener]:
    """Listen on an exclusive queue, over a connection of its own."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await declare.declare_results(connection, topology)
        queue = await channel.declare_queue(exclusive=True)
        for key in keys or ("#",):
            await queue.bind(topology.results.name, key)
        listener = Listener()
        await queue.consume(listener.note, no_ack=True)
        yield listener


async def bound_queue(connection: Connection, topology: Topology, arguments: dict[str, object], *keys: str) -> str:
    """Create a durable queue with these arguments and return its name. Delete it with ``delete_queue``."""
    async with await connection.channel() as channel:
        await declare.declare_results(connection, topology)
        name = f"{topology.namespace}.foreign.{uuid4().hex[:6]}"
        queue = await channel.declare_queue(name, durable=True, arguments=dict(arguments))  # type: ignore[arg-type]
        for key in keys or ("#",):
            await queue.bind(topology.results.name, key)
    return name


async def delete_queue(connection: Connection, name: str) -> None:
    async with await connection.channel() as channel:
        await channel.queue_delete(name)


def without_repeats(delivered: Sequence[T]) -> list[T]:
    """Return the items without repeats, in order."""
    return list(dict.fromkeys(delivered))
