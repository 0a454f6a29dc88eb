"""A TCP proxy that delays, cuts, resets and refuses connections, as a network may."""

import asyncio
import socket
import struct
from contextlib import suppress

from yarl import URL

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST


class Proxy:
    """``async with Proxy(url) as proxy: connect(proxy.url)``.

    ``hold_requests`` and ``hold_answers`` hold back what clients and the server send (both: a black hole). ``refuse``
    drops new connections.
    """

    def __init__(self, url: str) -> None:
        self.hold_requests = False
        self.hold_answers = False
        self.refuse = False
        self.held = 0
        """How many chunks are held or were lost."""
        self.seen = 0
        """How many connections were accepted."""
        self.answered = 0
        """How many chunks of answers were forwarded."""
        self._target = URL(url)
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The server's URL through this proxy."""
        assert self._server is not None
        return str(self._target.with_host("127.0.0.1").with_port(self._server.sockets[0].getsockname()[1]))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._pairs)

    def cut(self, *, reset: bool = False) -> None:
        """End all connections on both sides, with FIN or with a reset."""
        for pair in tuple(self._pairs):
            self._pairs.discard(pair)
            for writer in pair:
                if reset:
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    writer.transport.abort()
                else:
                    writer.close()

    def leave(self) -> None:
        """End all connections with a reset, and stop listening."""
        assert self._server is not None
        self._server.close()
        self.cut(reset=True)

    def half_close(self) -> None:
        """Close the server's direction of all connections, and go on reading from the clients."""
        self.hold_answers = True
        for client, _ in self._pairs:
            client.write_eof()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        assert self._target.host is not None
        try:
            far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        self.seen += 1
        pair = (writer, far_writer)
        self._pairs.add(pair)
        for source, sink, requests in ((reader, far_writer, True), (far_reader, writer, False)):
            task = asyncio.create_task(self._pump(source, sink, pair, requests=requests))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        requests: bool,
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                self.held += self.hold_requests if requests else self.hold_answers
                while (self.hold_requests if requests else self.hold_answers) and pair in self._pairs:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                if pair not in self._pairs:
                    return  # what was held is lost
                sink.write(data)
                await sink.drain()
                self.answered += not requests
        if pair in self._pairs:
            self._pairs.discard(pair)
            for writer in pair:
                writer.close()
