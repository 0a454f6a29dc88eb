"""Wakes the forwarders of this process when a transaction with rows for them is committed.

It only saves the time until they look again. A row of another process, or one whose commit is not noticed, is found
then.
"""

import asyncio
from typing import Final

from sqlalchemy import Connection, event

_waiting: Final[set["Wakeup"]] = set()


class Wakeup:
    """What one forwarder waits for. Use it with ``with``, on the forwarder's loop."""

    def __init__(self) -> None:
        self.set = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> "Wakeup":
        _waiting.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        _waiting.discard(self)

    def wake(self) -> None:
        """Set the event. Can be called from any thread."""
        try:
            self._loop.call_soon_threadsafe(self.set.set)
        except RuntimeError:  # the loop has ended; or this is a forked process
            _waiting.discard(self)


def wake_at_commit(connection: Connection) -> None:
    """Wake the forwarders of this process when a transaction of ``connection`` is committed."""
    if _waiting and not event.contains(connection, "commit", _wake):
        event.listen(connection, "commit", _wake)


def _wake(_: Connection) -> None:
    for each in tuple(_waiting):
        each.wake()
