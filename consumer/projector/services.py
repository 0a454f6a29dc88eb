"""Runs what the active projector does beside folding: it publishes events, sends effects, and rescues what is lost
or given up.

It begins once the tape is attached to, goes on while that is done again, and ends with the lease or in a gap. Whatever
goes wrong here is logged and begun again, and never holds up the fold.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.broker.tasks import translate_cancellation
from jobtape.consumer.projector.maintenance.dead_letters import DeadLetters
from jobtape.consumer.projector.maintenance.effect_sender import EffectSender
from jobtape.consumer.projector.maintenance.job_rescuer import JobRescuer
from jobtape.consumer.projector.maintenance.leader import Leader, NotActive
from jobtape.consumer.projector.maintenance.pruner import Pruner
from jobtape.consumer.projector.maintenance.queue_redeclarer import QueueRedeclarer
from jobtape.consumer.projector.maintenance.stranded_work import StrandedWork
from jobtape.consumer.projector.relay import Relay
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing, ViewUnavailable
from jobtape.schemas.events import RelayMode
from jobtape.schemas.topology import Topology
from jobtape.view.store import Batch, Store

log = logging.getLogger(__name__)

PAUSE: Final = 1.0
"""Seconds until something that failed is begun again."""
ENDING: Final = 5.0
EXPECTED: Final = (ViewUnavailable, BrokerUnavailable, TapeMissing, NotActive, *BROKER_ERRORS)


class LeaderServices:
    """The services that only the active projector runs. ``link``: the projector's own connection; ``rescue_after`` and
    ``keep``: seconds, see ``JobRescuer`` and ``Pruner``; ``relay``: which events are published to subscribers.
    """

    def __init__(
        self,
        url: str,
        topology: Topology,
        store: Store,
        *,
        owner: str,
        link: Link,
        rescue_after: float,
        relay: RelayMode,
        keep: float,
    ) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._link = Link(url, name=f"{topology.namespace} projector {owner} (effects)")
        self._leader = Leader(store, owner, link, Publisher(self._link, topology))
        self._sender = EffectSender(self._leader)
        self._relay = Relay(url, topology, store, owner=owner, mode=relay, catch_up=self._leader.catch_up)
        self._others = (
            self._relay,
            DeadLetters(self._leader, self._sender.wake),
            Pruner(self._leader, keep),
            JobRescuer(self._leader, self._sender.wake, rescue_after),
            StrandedWork(self._leader, rescue_after),
            QueueRedeclarer(self._leader, rescue_after),
        )

    def connect(self) -> None:
        """Begin to connect."""
        self._link.start()

    async def close(self) -> None:
        """End the connections."""
        await self._relay.close()
        await self._leader.publisher.close()
        self._leader.close()

    def folded(self, batch: Batch) -> None:
        """The fold has committed ``batch``."""
        self._sender.folded(batch)
        self._leader.folded(batch)
        self._relay.folded()

    def begin(self) -> None:
        """Let everything be done; it is for the projector that holds the lease. Again changes nothing."""
        if not self._tasks:
            parts = (self._sender, *self._others)
            self._tasks = {asyncio.create_task(_repeat(part.run), name=type(part).__name__) for part in parts}

    async def end(self) -> None:
        """Returns when nothing is done any more."""
        pending, self._tasks = self._tasks, set()
        # Once is not always enough: what closes a channel may turn a cancellation into an error of its own.
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=ENDING)


async def _repeat(work: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    while not task.cancelling():
        try:
            with translate_cancellation():
                await work()
        except EXPECTED as error:
            log.warning("%s was interrupted and begins again: %s", task.get_name(), reason_of(error))
        except Exception:
            log.exception("%s failed and begins again", task.get_name())
        await asyncio.sleep(PAUSE)
