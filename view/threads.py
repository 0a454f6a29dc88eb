"""Threads that make blocking calls to the database for an event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class DatabaseThreads:
    """At most ``count`` calls run at once; further ones wait in order. With one thread all calls run in order.

    ``name`` begins the names of the threads.
    """

    def __init__(self, name: str, count: int = 1) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    def call(self, function: Callable[..., T], *args: object) -> "asyncio.Future[T]":
        """Queue ``function(*args)`` at once, and return a future of what it returns or raises.

        Cancelling the future removes a call that has not begun. One that has begun runs to its end in its thread.
        """
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def close(self) -> None:
        """Accept no further calls, and end the threads after the queued ones. Does not wait for that."""
        self._executor.shutdown(wait=False)

    async def join(self) -> None:
        """Accept no further calls, cancel those that have not begun, and wait until the others have ended."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
