"""One connection to the broker that is made again whenever it is lost.

The connections are aio-pika's plain ones, not the robust ones: a publisher, a worker and a stream reader have different
things to declare and consume again, so each one does it itself, in ``setup``.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import aio_pika
import aio_pika.abc
import aiormq.exceptions
from aio_pika.connection import make_url
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from jobtape.broker.connection_errors import describe_connection_error, reason_of
from jobtape.broker.frames import READ_SIZE, FrameReader
from jobtape.broker.tasks import cancel_and_wait
from jobtape.process import forks
from jobtape.schemas.errors import BrokerUnavailable
from jobtape.schemas.urls import each_url, without_password
from jobtape.telemetry.instruments import reconnects

__all__ = ["BROKER_ERRORS", "Connection", "Link", "reason_of"]

log = logging.getLogger(__name__)

Connection = aio_pika.abc.AbstractConnection
Setup = Callable[[Connection], Awaitable[None]]

CONNECT_TIMEOUT = 5.0
"""Seconds for opening a connection."""
HEARTBEAT = 10
"""Seconds, unless the URL has another ``heartbeat``; a peer is taken for dead after three missed heartbeats."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds until the next try to connect."""

openers: dict[str, Callable[[], Connection]] = {}
"""By URL: what opens a connection instead of a socket. `jobtape.testing` adds brokers in memory."""

BROKER_ERRORS = (aiormq.exceptions.AMQPError, OSError, TimeoutError, RuntimeError)
"""What aio-pika and aiormq raise when the broker is unreachable, restarts, or closes a channel or connection.
RuntimeError is for one that is closed already."""


@asynccontextmanager
async def connected(url: str, limit: float) -> AsyncIterator[Connection]:
    """Give a connection for the block, which may take ``limit`` seconds. Raises BrokerUnavailable with what to do."""
    url, connection = await _first_connection(url)
    try:
        async with connection, asyncio.timeout(limit):
            yield connection
    except BROKER_ERRORS as error:
        raise BrokerUnavailable(
            f"the broker at {without_password(url)} stopped answering ({reason_of(error)}): see its log, then try again"
        ) from None


async def _first_connection(urls: str) -> tuple[str, Connection]:
    """Return a connection to the first host that can be used, and its URL. Raises BrokerUnavailable."""
    faults = []
    for url in each_url(urls):
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return url, await aio_pika.connect(url)
        except BROKER_ERRORS as error:
            faults.append(describe_connection_error(url, error))
    raise BrokerUnavailable("; ".join(faults))


class Transports(TransportFactory):
    """Connects as aiormq does, reads frames in bulk, and remembers the socket."""

    def __init__(self) -> None:
        self.reader: FrameReader | None = None
        """Reads the latest connection."""
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the broker at ``url``."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, limit=READ_SIZE, **kwargs)
        self.reader = FrameReader(reader)
        return cast(asyncio.StreamReader, self.reader), self._writer

    def descriptor(self) -> int:
        """Return the file descriptor of the latest connection, or -1."""
        socket = None if self._writer is None else self._writer.get_extra_info("socket")
        return -1 if socket is None else int(socket.fileno())


class Link:
    """Keeps one connection up. ``setup`` runs on each new connection before anyone else gets it.

    ``url``: with several hosts, they are tried in turn, and there is a pause when all were tried. When a connection is
    lost, the next host is tried first, since the one that was lost may be dead.
    """

    def __init__(self, url: str, *, name: str, setup: Setup | None = None) -> None:
        self.url = url
        """The URL of all hosts, for another link."""
        self._urls = each_url(url)
        self._tried = 0
        self.name = name
        self.fault: str | None = "not connected yet"
        """Why there is no usable connection; None while there is one."""
        self._setup = setup
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._closed: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._transports = Transports()

    @property
    def host_url(self) -> str:
        """The URL of the host that is used, or tried next."""
        return self._urls[self._tried % len(self._urls)]

    def start(self) -> None:
        """Start connecting in the background."""
        # A copy of the socket in a forked child would keep the connection open, and with it the deliveries of a worker.
        forks.on_fork(self, lambda link: forks.close_in_child(link._transports.descriptor()))
        if self._task is None:
            self._task = asyncio.create_task(self._keep_up(), name=f"link {self.name}")

    async def close(self) -> None:
        """Close the connection and stop reconnecting."""
        task, self._task = self._task, None
        if task is not None:
            await cancel_and_wait(task)

    def reset(self) -> None:
        """Drop a connection that does not answer, and make another one."""
        self._up.clear()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    async def connection(self) -> Connection:
        """Wait for an open connection and return it. There is no time limit; set one around the call."""
        while True:
            await self._up.wait()
            if self._connection is not None and not self._connection.is_closed:
                return self._connection
            await asyncio.sleep(0)  # lost just now; ``_keep_up`` clears the event in its next step

    @property
    def up(self) -> bool:
        """Whether there is a usable connection now."""
        return self._up.is_set() and self._connection is not None and not self._connection.is_closed

    async def _keep_up(self) -> None:
        pause, failed = FIRST_PAUSE, 0
        while True:
            try:
                closed = await self._connect()
                if pause > FIRST_PAUSE:
                    log.info("%s: connected to %s", self.name, without_password(self.host_url))
                pause, failed = FIRST_PAUSE, 0
                await closed
                self.fault = f"the connection to {without_password(self.host_url)} was lost"
                # The name is the namespace, the part, and what may be an id.
                reconnects.labels(next(iter(self.name.split()[1:2]), "other")).inc()
                log.warning("%s: %s; connecting again", self.name, self.fault)
            except Exception as error:  # noqa: BLE001 - any error (an invalid URL too) is logged and shown
                if self._connection is None:
                    self.fault = describe_connection_error(self.host_url, error)
                else:
                    self.fault = f"the broker at {without_password(self.host_url)} cannot be used: {reason_of(error)}"
                if pause == FIRST_PAUSE:
                    log.warning("%s: %s; trying again until it answers (see RABBITMQ_URL)", self.name, self.fault)
            finally:
                self._up.clear()
                connection, self._connection = self._connection, None
                if connection is not None:
                    await self._drop(connection)
            self._tried += 1
            failed += 1
            if failed % len(self._urls) == 0:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _connect(self) -> "asyncio.Future[None]":
        """Make a new connection and set it up. Return a future that is done when the connection is lost."""
        connection = openers[self.host_url]() if self.host_url in openers else await self._open()
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_close(*_: object) -> None:
            if not closed.done():
                closed.set_result(None)

        connection.close_callbacks.add(on_close)
        self._connection, self._closed = connection, closed
        if self._setup is not None:
            async with asyncio.timeout(CONNECT_TIMEOUT * 4):
                await self._setup(connection)
        self.fault = None
        self._up.set()
        return closed

    async def _open(self) -> Connection:
        # A host that is cut off must not hold up the others for long.
        async with asyncio.timeout(CONNECT_TIMEOUT if len(self._urls) == 1 else CONNECT_TIMEOUT / 2):
            url = make_url(self.host_url)
            if "heartbeat" not in url.query:
                url = make_url(self.host_url, heartbeat=HEARTBEAT)
            connection = aio_pika.Connection(url, client_properties={"connection_name": self.name})
            self._transports = Transports()
            connection.kwargs["transport_factory"] = self._transports
            await connection.connect()
        return connection

    @staticmethod
    async def _drop(connection: Connection) -> None:
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(2):
                await connection.close()
