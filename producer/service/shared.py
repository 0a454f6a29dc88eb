"""An answer that those who ask at about the same time share."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from jobtape.broker.tasks import cancel_and_wait, ignore_error

T = TypeVar("T")


class Shared(Generic[T]):
    """Calls ``work`` at most once at a time, and gives its answer to all who ask within ``seconds`` after it came.

    A failure is given to those who wait for it only.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._task: asyncio.Task[T] | None = None
        self._until = 0.0

    async def __call__(self) -> T:
        """Return the answer. Raises what ``work`` raises."""
        if self._task is None or (self._task.done() and time.monotonic() > self._until):
            self._task = asyncio.create_task(self._run(), name="shared answer")
            self._task.add_done_callback(ignore_error)
        # Who asked first may be cancelled while others wait.
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        """End the work."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _run(self) -> T:
        self._until = 0.0
        found = await self._work()
        self._until = time.monotonic() + self._seconds
        return found
