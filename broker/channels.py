"""Opens channels, and leaves nothing behind on the connection when they are closed.

They are aiormq's, over aio-pika's connection. aio-pika's own leave a callback and what hangs on it (4.5 KiB) on their
connection for each that was opened, as it takes it off again from a future that aiormq makes for each caller
(aio-pika 10.2.1 with aiormq 7.2.4, *tried*). A process that looks at a queue every second would grow by hundreds of
megabytes a day.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiormq.abc import AbstractChannel

from jobtape.broker.link import BROKER_ERRORS, Connection

Channel = AbstractChannel


async def open_channel(connection: Connection, *, confirms: bool = False) -> Channel:
    """A new channel, for the caller to close.

    With ``confirms`` a publish returns when the broker has confirmed it, and raises PublishError where a mandatory one
    was returned. Raises one of ``BROKER_ERRORS``.
    """
    transport = connection.transport
    if transport is None:
        raise ConnectionError("the connection was lost")
    # Without ``transport.ready()``: it waits for the end of an alarm, and for ever when the connection is lost before.
    return await transport.connection.channel(publisher_confirms=confirms, on_return_raises=confirms)


@asynccontextmanager
async def channel(connection: Connection, *, confirms: bool = False) -> AsyncIterator[Channel]:
    """The same, closed at the end: what was taken by it and not settled goes back to its queue then."""
    opened = await open_channel(connection, confirms=confirms)
    try:
        yield opened
    finally:
        with suppress(*BROKER_ERRORS):
            await opened.close()
