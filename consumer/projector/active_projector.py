"""The active projector as its services see it: view, broker, and a way to wait for the fold."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from jobtape.broker import declare
from jobtape.broker.declare import Depth
from jobtape.broker.link import Link
from jobtape.broker.publisher import Publisher
from jobtape.schemas.errors import BrokerUnavailable
from jobtape.schemas.events import JobEvent, Placed
from jobtape.schemas.topology import Topology
from jobtape.view.store import DeadMessage, FoldedBatch, Store
from jobtape.view.threads import DatabaseThreads

log = logging.getLogger(__name__)

DEPTH_TIMEOUT: Final = 2.0
"""Seconds. The broker waits five seconds for the leader of a queue, and then reports that the queue is empty."""


class NotActive(Exception):
    """Another projector is active: nothing was written."""


class ActiveProjector:
    """What the services of the active projector share. ``link`` reads queues, ``publisher`` publishes over a connection
    of its own; ``owner`` holds the lease.
    """

    def __init__(self, store: Store, owner: str, link: Link, publisher: Publisher) -> None:
        self.store = store
        self.owner = owner
        self.link = link
        self.publisher = publisher
        self._passing: dict[int, asyncio.Future[None]] = {}
        self._process = f"active-projector-{uuid4().hex}"
        self._seq = 0
        self.cursor = 0
        """Up to which the tape is folded and committed; 0 before the first commit."""
        self.active_until = math.inf
        """Until when this projector has the lease at least, in seconds of ``time.monotonic``."""
        self.repeated: Counter[str] = Counter()
        """How many placements are published again for each queue, because they were not confirmed."""
        # A thread of its own: the fold does not wait for these calls.
        thread = DatabaseThreads("active projector")
        self.call = thread.call
        self.close = thread.close

    @property
    def topology(self) -> Topology:
        """The exchanges and queues of this namespace."""
        return self.publisher.topology

    def check_active(self) -> None:
        """Raise NotActive when the lease may have ended: this process was frozen, or the database is away.

        Call it right before publishing what only one projector may decide.
        """
        if time.monotonic() > self.active_until:
            raise NotActive("the lease was not renewed in time")

    async def publish(self, event: JobEvent, cc: Sequence[str] = ()) -> None:
        """Publish a decision about a job until it is confirmed, with the further keys ``cc``; one that places work also
        to its queue.

        After a failed publish the tape may have the event and the queue not. The view then shows the work as placed,
        so deciding again would not help, and the same event is repeated. Raises TapeMissing, and
        NotActive as ``check_active``.
        """
        while True:
            self.check_active()
            try:
                await (self.publisher.place(event) if isinstance(event, Placed) else self.publisher.publish(event, cc))
                return
            except BrokerUnavailable as error:
                log.warning("the event %s was not confirmed, trying again: %s", event.id, error)

    async def keep_dead(self, messages: Sequence[DeadMessage]) -> None:
        """Write messages that are no job to the view. Raises NotActive and ViewUnavailable."""
        if messages and not await self.call(self.store.dead_messages.add, self.owner, messages):
            raise NotActive

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

    def notify(self, batch: FoldedBatch, cursor: int) -> None:
        """Complete the ``catch_up`` calls whose barriers are in ``batch``, which the fold has committed up to
        ``cursor``.
        """
        self.cursor = cursor
        # A barrier with a higher number was published later, so it stands for the lower ones too.
        highest = batch.barriers.get(self._process, 0)
        for seq, passed in self._passing.items():
            if seq <= highest and not passed.done():
                passed.set_result(None)
