"""The active projector as its services see it: view, broker, outbox, and a way to wait for the fold."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import uuid4

from jobtape.broker import declare
from jobtape.broker.declare import Depth
from jobtape.broker.link import Link
from jobtape.broker.publisher import Publisher
from jobtape.schemas.effects import MAX_RESCUES
from jobtape.schemas.job import Job
from jobtape.schemas.topology import Topology
from jobtape.view.store import Batch, DeadMessage, OutboxRow, Store
from jobtape.view.threads import DatabaseThreads

DEPTH_TIMEOUT: Final = 2.0
"""Seconds. The broker waits five seconds for the leader of a queue, and then reports that the queue is empty."""


class NotActive(Exception):
    """Another projector is active: nothing was written."""


class Leader:
    """``link`` reads queues, ``publisher`` publishes over a connection of its own; ``owner`` holds the lease."""

    def __init__(self, store: Store, owner: str, link: Link, publisher: Publisher) -> None:
        self.store = store
        self.owner = owner
        self.link = link
        self.publisher = publisher
        self.effects_added = asyncio.Event()
        """Set when ``add`` has written effects that are to be sent."""
        self._passing: dict[int, asyncio.Future[None]] = {}
        self._process = f"effects-{uuid4().hex}"
        self._seq = 0
        # A thread of its own: the fold does not wait for these calls.
        thread = DatabaseThreads("effects")
        self.call = thread.call
        self.close = thread.close

    @property
    def topology(self) -> Topology:
        """The exchanges and queues of this namespace."""
        return self.publisher.topology

    async def add(self, effects: Sequence[OutboxRow], dead: Sequence[DeadMessage] = ()) -> None:
        """Write effects and dead messages to the view. Raises NotActive and ViewUnavailable."""
        if (effects or dead) and not await self.call(self.store.outbox.add, self.owner, effects, dead):
            raise NotActive
        if effects:
            self.effects_added.set()

    async def dropped_placements(self, jobs: Collection[Job]) -> Mapping[str, int]:
        """Return, by job id, how many placements followed from drops; only of jobs that were placed often."""
        placed_often = [job for job in jobs if job.placed > MAX_RESCUES]
        return await self.call(self.store.open_jobs.dropped_placements, placed_often)

    async def depth(self, name: str) -> Depth | None:
        """Return how full the queue with this name on the broker is; None when it does not exist.

        Raises BROKER_ERRORS.
        """
        async with asyncio.timeout(DEPTH_TIMEOUT):
            return await declare.depth(await self.link.connection(), name)

    async def catch_up(self) -> None:
        """Return when everything that was on the tape at the time of the call has been folded and committed.

        Raises BrokerUnavailable or TapeMissing when the tape accepts no barrier.
        """
        self._seq += 1
        seq = self._seq
        passed = self._passing[seq] = asyncio.get_running_loop().create_future()
        try:
            await self.publisher.publish_barrier(self._process, seq)
            await passed
        finally:
            del self._passing[seq]

    def notify(self, batch: Batch) -> None:
        """Complete the ``catch_up`` calls whose barriers are in ``batch``, which the fold has committed."""
        # A barrier with a higher number was published later, so it stands for the lower ones too.
        highest = batch.barriers.get(self._process, 0)
        for seq, passed in self._passing.items():
            if seq <= highest and not passed.done():
                passed.set_result(None)
