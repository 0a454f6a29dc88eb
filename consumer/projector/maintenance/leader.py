"""What those who work beside the fold share: the view, the broker's queues, and a way to wait for the fold."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from jobtape.broker import declare
from jobtape.broker.declare import Depth
from jobtape.broker.link import BROKER_ERRORS, Link
from jobtape.broker.publisher import Publisher
from jobtape.schemas.topology import Topology
from jobtape.view.store import Batch, DeadMessage, OutboxRow, Store
from jobtape.view.threads import DatabaseThreads

LOOK_LIMIT: Final = 2.0
"""Seconds for a look at a queue. The broker waits five for a queue's leader, and then says that it is empty."""


class NotActive(Exception):
    """Another projector is the active one: nothing was written."""


class Leader:
    """``link`` is for looking and taking, ``publisher`` for publishing; ``owner`` is the active projector's name."""

    def __init__(self, store: Store, owner: str, link: Link, publisher: Publisher) -> None:
        self.store = store
        self.owner = owner
        self.link = link
        self.publisher = publisher
        self._passing: dict[int, asyncio.Future[None]] = {}
        self._process = f"effects-{uuid4().hex}"
        self._seq = 0
        # A thread of its own: the fold does not wait for these calls.
        thread = DatabaseThreads("effects")
        self.call = thread.call
        self.close = thread.close

    @property
    def topology(self) -> Topology:
        """Everything on the broker."""
        return self.publisher.topology

    async def add(self, effects: Sequence[OutboxRow], dead: Sequence[DeadMessage] = ()) -> None:
        """Write them to the view. Raises NotActive when that is another's business, and ViewUnavailable."""
        if (effects or dead) and not await self.call(self.store.outbox.add, self.owner, effects, dead):
            raise NotActive

    async def depth(self, queue: str) -> Depth | None:
        """How full the work queue is, None when it does not exist. Raises what the broker's libraries raise."""
        return await self.depth_of(self.topology.work_queue(queue).name)

    async def depth_of(self, name: str) -> Depth | None:
        """The same by a queue's name on the broker."""
        async with asyncio.timeout(LOOK_LIMIT):
            return await declare.depth(await self.link.connection(), name)

    async def is_there(self, queue: str) -> bool:
        """Whether the work queue takes work now."""
        try:
            return await self.depth(queue) is not None
        except BROKER_ERRORS:
            return False

    async def catch_up(self) -> None:
        """Returns when everything that was on the tape at the call has been folded and committed.

        Raises BrokerUnavailable or TapeMissing when the tape takes no barrier.
        """
        self._seq += 1
        seq = self._seq
        passed = self._passing[seq] = asyncio.get_running_loop().create_future()
        try:
            await self.publisher.publish_barrier(self._process, seq)
            await passed
        finally:
            del self._passing[seq]

    def folded(self, batch: Batch) -> None:
        """The fold has committed ``batch``."""
        # A barrier of a higher number was asked for later, so it speaks for the lower ones too.
        highest = batch.barriers.get(self._process, 0)
        for seq, passed in self._passing.items():
            if seq <= highest and not passed.done():
                passed.set_result(None)
