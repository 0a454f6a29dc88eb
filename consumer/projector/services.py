"""Runs the services of the active projector beside the fold: ``_services`` lists them.

They start when the projector has attached to the tape, keep running while it attaches again, and stop when it loses the
lease or finds a gap. A service that fails is logged and started again; it never delays the fold.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from jobtape.broker.link import BROKER_ERRORS, Link, reason_of
from jobtape.broker.publisher import Publisher
from jobtape.broker.tasks import translate_cancellation
from jobtape.consumer.projector.active_projector import ActiveProjector, NotActive
from jobtape.consumer.projector.commit_notifier import CommitNotifier
from jobtape.consumer.projector.dispatch.flows.deadlocks import Deadlocks
from jobtape.consumer.projector.dispatch.flows.runner import FlowRunner
from jobtape.consumer.projector.dispatch.job_placer import JobPlacer
from jobtape.consumer.projector.dispatch.scheduler import Scheduler
from jobtape.consumer.projector.dispatch.webhooks import WebhookDispatcher
from jobtape.consumer.projector.maintenance.dead_letters import DeadLetters
from jobtape.consumer.projector.maintenance.job_rescuer import JobRescuer
from jobtape.consumer.projector.maintenance.lost_messages import LostMessages
from jobtape.consumer.projector.maintenance.pruner import Pruner
from jobtape.consumer.projector.maintenance.queue_declarer import QueueDeclarer
from jobtape.consumer.projector.maintenance.rule_repeater import RuleRepeater
from jobtape.consumer.projector.maintenance.tape_end import TapeEnd
from jobtape.consumer.projector.maintenance.worker_registry import WorkerRegistry
from jobtape.consumer.projector.relay import Relay
from jobtape.schemas.errors import BrokerUnavailable, TapeMissing, ViewUnavailable
from jobtape.schemas.events import RelayMode
from jobtape.schemas.topology import Topology
from jobtape.view.store import FoldedBatch, Store

log = logging.getLogger(__name__)

PAUSE: Final = 1.0
"""Seconds until a failed service is started again."""
CANCEL_AGAIN: Final = 5.0
"""Seconds after which a service that has not ended is cancelled again."""
EXPECTED: Final = (ViewUnavailable, BrokerUnavailable, TapeMissing, NotActive, *BROKER_ERRORS)


class _Service(Protocol):
    async def run(self) -> None: ...


class ProjectorServices:
    """The services of the active projector. ``link`` is the projector's own connection.

    ``rescue_after`` and ``job_retention`` are in seconds, see ``JobRescuer`` and ``Pruner``; ``relay`` says which
    events are published to subscribers. ``max_payload``: see ``FlowRunner``. ``maintenance``: whether what was lost is
    rescued, and what is old removed.
    """

    def __init__(
        self,
        topology: Topology,
        store: Store,
        *,
        owner: str,
        link: Link,
        rescue_after: float,
        relay: RelayMode,
        job_retention: float,
        max_payload: int,
        maintenance: bool = True,
    ) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        publishing = Link(link.url, name=f"{topology.namespace} projector {owner} (publishing)")
        self._active = ActiveProjector(store, owner, link, Publisher(publishing, topology))
        self._lost = LostMessages(self._active)
        self._placer = JobPlacer(self._active)
        self._scheduler = Scheduler(self._active)
        self._flows = FlowRunner(self._active, max_payload)
        self._relay = Relay(self._active, relay)
        self._webhooks = WebhookDispatcher(self._active)
        self._commits = CommitNotifier(publishing, topology)
        self._services: tuple[_Service, ...] = (
            self._placer,
            self._relay,
            DeadLetters(self._active),
            self._scheduler,
            self._flows,
            Deadlocks(self._active),
            self._webhooks,
        )
        if maintenance:
            self._services += (
                self._lost,
                Pruner(self._active, job_retention),
                JobRescuer(self._active, rescue_after),
                QueueDeclarer(self._active, rescue_after),
                RuleRepeater(self._active),
                WorkerRegistry(self._active),
                TapeEnd(self._active),
            )

    async def close(self) -> None:
        """Close the connections and end the threads. Call it after ``stop``."""
        await self._relay.close()
        await self._active.publisher.close()
        self._active.close()

    def notify(self, batch: FoldedBatch, cursor: int) -> None:
        """Notify the services and the API processes that the fold has committed ``batch``, which ends at ``cursor``."""
        self._commits.notify({job.id: job.final for job in batch.jobs})
        self._active.notify(batch, cursor)
        self._placer.notify(batch)
        self._lost.notify(batch)
        self._scheduler.notify(batch)
        self._flows.notify(batch)
        self._relay.notify(batch, cursor)
        self._webhooks.notify(batch, cursor)

    def next_at(self) -> float:
        """Return when a service has something to do although nothing is committed until then, in seconds since 1970.

        Timers of jobs are left out: the view has them (``OpenJobs.earliest_timed``).
        """
        return min(self._placer.next_at(), self._scheduler.next_at(), self._flows.next_at())

    def renewed(self, until: float) -> None:
        """Note until when the lease holds at least, in seconds of ``time.monotonic``."""
        self._active.active_until = until

    def start(self) -> None:
        """Start the services, unless they run already. Only for the projector that has the lease."""
        self._active.publisher.link.start()
        if not self._tasks:
            self._tasks = {asyncio.create_task(_repeat(each.run), name=type(each).__name__) for each in self._services}

    async def stop(self) -> None:
        """Cancel the services, and return when all have ended."""
        pending, self._tasks = self._tasks, set()
        # One cancellation may not be enough: closing a channel may turn it into another error.
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN)


async def _repeat(work: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    while not task.cancelling():
        try:
            with translate_cancellation():
                await work()
        except EXPECTED as error:
            log.warning("%s was interrupted and starts again: %s", task.get_name(), reason_of(error))
        except Exception:
            log.exception("%s failed and starts again", task.get_name())
        await asyncio.sleep(PAUSE)
