"""Measures with a barrier how many seconds the view is behind the tape."""

import asyncio
import time
from typing import Final

from jobtape.producer.service.barrier import Barrier
from jobtape.schemas.errors import JobtapeError

ANSWER_TIMEOUT: Final = 0.5
"""Seconds after which a measurement that still runs is answered with its age."""
LONGEST_PAUSE: Final = 0.5
"""The most seconds between two polls of the view, also of a database that does not answer."""
PUBLISH_TIMEOUT: Final = 5.0


class LagProbe:
    """Has at most one barrier on the tape. One that has not passed yet continues through later calls."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier
        self._published = 0.0
        self._task: asyncio.Task[float] | None = None

    async def seconds(self) -> float | None:
        """Return the seconds from a barrier's publish until the view has passed it, or until now if it has not.

        None when the tape does not take a barrier.
        """
        if self._task is None:
            self._published = time.monotonic()
            self._task = asyncio.create_task(self._measure(), name="lag")
        task = self._task
        await asyncio.wait({task}, timeout=ANSWER_TIMEOUT)
        if not task.done():
            return time.monotonic() - self._published
        if self._task is task:
            self._task = None
        if task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    async def close(self) -> None:
        """Stop measuring."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _measure(self) -> float:
        await self._barrier.publish(PUBLISH_TIMEOUT)
        while True:
            try:
                await self._barrier.wait(longest_pause=LONGEST_PAUSE)
                return time.monotonic() - self._published
            except JobtapeError:  # the database does not answer, and the lag grows
                await asyncio.sleep(LONGEST_PAUSE)
