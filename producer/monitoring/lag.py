"""How far the view is behind the tape, in seconds, measured by a barrier."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from uuid import uuid4

from jobtape.schemas.errors import JobtapeError

PATIENCE: Final = 0.5
"""Seconds that a measurement is waited for; one that takes longer goes on, and its age is the answer so far."""
FIRST_POLL, LONGEST_POLL = 0.002, 0.5
PUBLISH_TIMEOUT: Final = 5.0


PublishBarrier = Callable[[str, int, float], Awaitable[None]]
"""Writes a barrier of a process with a number to the tape, within so many seconds."""


class LagProbe:
    """At most one barrier at a time, which stays out across scrapes until it has passed."""

    def __init__(
        self,
        publish: PublishBarrier,
        passed: Callable[[str], Awaitable[int]],
    ) -> None:
        self._publish = publish
        self._passed = passed
        # A name of its own: barriers of one name must reach the tape in the order of their numbers.
        self._process = f"lag-{uuid4().hex}"
        self._seq = 0
        self._published = 0.0
        self._task: asyncio.Task[float] | None = None

    async def seconds(self) -> float | None:
        """From the publish of a barrier to its passing; while it has not passed, the time since. None when the tape
        does not take a barrier.
        """
        if self._task is None:
            self._published = time.monotonic()
            self._task = asyncio.create_task(self._measure(), name="lag")
        task = self._task
        await asyncio.wait({task}, timeout=PATIENCE)
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
        self._seq += 1
        seq, pause = self._seq, FIRST_POLL
        await self._publish(self._process, seq, PUBLISH_TIMEOUT)
        while True:
            with suppress(JobtapeError):  # the view does not answer: the lag grows
                if await self._passed(self._process) >= seq:
                    return time.monotonic() - self._published
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL)
