"""Reads the queues of live subscriptions. Only RabbitMQ's management API lists them, and it may be off.

Many pages ask for the same, so requests share an answer for some seconds.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from jobtape.broker.management import ENABLE, ManagementApi, SeenQueue, Unseen
from jobtape.producer.service.shared import Shared
from jobtape.schemas.topology import Topology

SHARED: Final = 3.0
"""Seconds for which an answer is shared by those who ask."""
WAIT: Final = 1.0
"""Seconds to wait for a new answer. After that the last one is returned."""
KEPT: Final = 15.0
"""Seconds for which the last answer is returned instead of a new one that does not come in time."""


@dataclass(frozen=True, slots=True)
class SubscriberQueues:
    """``queues``: None when they are not known. ``reason``: why, and what to do."""

    queues: Sequence[SeenQueue] | None
    reason: str | None = None


class Subscribers:
    """The queues of live subscriptions of ``topology``."""

    def __init__(self, api: ManagementApi, topology: Topology) -> None:
        self._api = api
        self._topology = topology
        self._shared = Shared(self._read, SHARED)
        self._last: tuple[float, SubscriberQueues] | None = None

    async def queues(self) -> SubscriberQueues:
        """Return the queues within a second, whatever is unavailable."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT):
                await self._shared()
        if self._last is None or time.monotonic() > self._last[0] + KEPT:
            return SubscriberQueues(None, "the management API has not answered yet: ask again in a few seconds")
        return self._last[1]

    async def close(self) -> None:
        """End a running read."""
        await self._shared.close()

    async def _read(self) -> None:
        try:
            found = SubscriberQueues(await self._api.subscriber_queues(self._topology))
        except Unseen as error:
            found = SubscriberQueues(None, f"{error}: {ENABLE}" if error.silent else str(error))
        self._last = (time.monotonic(), found)
