"""What a worker and the process of an isolated handler say to each other: JSON objects, each behind its length.

JSON and nothing else: a handler's process must not be able to make the worker run code. The worker sends one
``setup``, then one ``job`` at a time; the process answers ``ready`` or ``broken``, and for a job any number of
``progress`` and ``log``, then one ``outcome``; ``submit`` is answered by ``submitted``.
"""

import asyncio
import json
import socket
import struct
import threading
from typing import Any, Final

from jobtape import forks

LENGTH: Final = struct.Struct(">I")
LARGEST: Final = 64 * 1024 * 1024
"""Bytes of one message: payload and result have limits of their own far below."""

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """The bytes to send."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end. What is no message (a handler wrote to our socket) is an end, too."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > LARGEST:
            return None
        message = json.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


class Wire:
    """The process's end: blocking, and safe to send on from any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._file = end.makefile("rb")
        self._sending = threading.Lock()
        self.left = False
        """Whether this is a forked child, whose words would go into the middle of its parent's."""
        forks.on_fork(self, Wire._leave)

    def send(self, message: Message) -> None:
        """Raises OSError when the worker is gone, ValueError or TypeError for what is too large or no JSON."""
        if self.left:
            raise ConnectionError("a forked child has no wire to the worker")
        data = pack(message)
        if len(data) > LARGEST:
            raise ValueError(f"{len(data)} bytes are more than a process can send to its worker: send a reference")
        with self._sending:
            self._end.sendall(data)

    def receive(self) -> Message | None:
        """The next message; None when the worker is gone."""
        try:
            head = self._file.read(LENGTH.size)
            if len(head) < LENGTH.size:
                return None
            body = self._file.read(LENGTH.unpack(head)[0])
        except OSError:
            return None
        message: Message = json.loads(body)
        return message

    def _leave(self) -> None:
        self.left = True
        forks.close_in_child(self._end.fileno())
