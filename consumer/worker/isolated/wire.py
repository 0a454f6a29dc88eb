"""The messages between a worker and the process of an isolated handler: JSON objects, each after its length.

They are JSON and nothing else, so that a handler's process cannot make the worker run code. The worker sends one
``setup``, then one ``job`` at a time. The process answers ``ready`` or ``broken``; for a job it sends any number of
``progress`` and ``log``, then one ``outcome``. The answer to ``submit`` is ``submitted``.
"""

import asyncio
import json
import socket
import struct
import threading
from typing import Any, Final

from jobtape.process import forks

LENGTH: Final = struct.Struct(">I")
LARGEST: Final = 64 * 1024 * 1024
"""Bytes of one message. The limits of payloads and results are far below."""

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """Return the bytes of ``message`` with its length."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message, or None at the end and after bytes that are no message (a handler wrote them)."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > LARGEST:
            return None
        message = json.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


class ChildWire:
    """The process's end of the connection. It blocks; any thread may send."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._file = end.makefile("rb")
        self._lock = threading.Lock()
        self.detached = False
        """Whether this is a forked child, whose messages would mix with its parent's."""
        forks.on_fork(self, ChildWire._detach)

    def send(self, message: Message) -> None:
        """Send a message.

        Raises OSError when the worker is gone, ValueError when the message is too large, TypeError when it is no JSON.
        """
        if self.detached:
            raise ConnectionError("a forked child has no wire to the worker")
        data = pack(message)
        if len(data) > LARGEST:
            raise ValueError(f"{len(data)} bytes are more than a process can send to its worker: send a reference")
        with self._lock:
            self._end.sendall(data)

    def receive(self) -> Message | None:
        """Wait for the next message and return it, or None when the worker is gone."""
        try:
            head = self._file.read(LENGTH.size)
            if len(head) < LENGTH.size:
                return None
            body = self._file.read(LENGTH.unpack(head)[0])
        except OSError:
            return None
        message: Message = json.loads(body)
        return message

    def _detach(self) -> None:
        self.detached = True
        forks.close_in_child(self._end.fileno())
