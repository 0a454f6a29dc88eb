"""Calls the view in threads, because it blocks: a limited number at a time, and with a time limit for the caller."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from jobtape.producer.service.errors import TooBusy
from jobtape.schemas.errors import ViewUnavailable
from jobtape.view.threads import DatabaseThreads

T = TypeVar("T")

MAX_WAITING: Final = 2000


class Reads:
    """Calls the view in threads: ``threads`` calls run at once, further ones wait their turn; each is given ``limit``
    seconds, the wait included.

    A call that takes longer goes on in its thread (it cannot be stopped) until the database's own limits end it.
    """

    def __init__(self, name: str, *, threads: int, limit: float) -> None:
        self._make_threads = partial(DatabaseThreads, name, threads)
        self._threads = self._make_threads()
        self._limit = limit
        self._waiting = 0

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return what ``function`` returns or raises. Raises ViewUnavailable after the limit, TooBusy when too many
        wait.
        """
        if self._waiting >= MAX_WAITING:
            raise TooBusy(f"{MAX_WAITING} reads of the view are waiting already: try again in a moment")
        future = self._threads.call(function, *args)
        # Whatever becomes of it when the caller is gone.
        future.add_done_callback(_forget)
        self._waiting += 1
        try:
            await asyncio.wait({future}, timeout=self._limit)
        finally:
            self._waiting -= 1
            if not future.done():
                future.cancel()
        if future.cancelled():
            raise ViewUnavailable(f"the view did not answer within {self._limit:g} s: is the database busy or away?")
        return future.result()

    async def close(self) -> None:
        """End the threads, and wait for calls that are running. A later call gets new threads."""
        threads, self._threads = self._threads, self._make_threads()
        await threads.join()


def _forget(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
