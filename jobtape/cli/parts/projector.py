"""``jobtape projector``: runs a projector in this process, and a worker for the built-in jobs."""

import asyncio
from typing import Final
from uuid import uuid4

from jobtape import builtin
from jobtape.cli import log_output as logs
from jobtape.cli.parts.lifeline import Lifeline
from jobtape.cli.parts.run import RunnablePart, process_name, run_part
from jobtape.cli.parts.start import configuring, refuse_unfit, settings_with
from jobtape.consumer.projector.projector import Projector
from jobtape.consumer.worker.worker import Worker
from jobtape.process import garbage
from jobtape.schemas.job_types.job_type import WEBHOOK_QUEUE
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings
from jobtape.telemetry import setup as telemetry
from jobtape.view.store import Store

BUILTIN_JOBS: Final = 2
"""How many built-in jobs one projector process runs at the same time, besides deliveries to webhooks."""
DELIVERIES: Final = 100
"""How many deliveries to webhooks one projector process runs at the same time."""


def run_projector(**options: str | None) -> None:
    """Fold the tape into the view, or stand by, until SIGTERM or SIGINT. Raises CannotStart."""
    lifeline = Lifeline()
    settings = settings_with(**options)
    logs.configure("projector", settings.log_level, settings.log_format)
    with configuring():
        telemetry.start("projector")
        store = Store(settings.database_url)
        refuse_unfit(store)

    def make() -> RunnablePart:
        garbage.collect_rarely()
        projector = Projector(
            settings.rabbitmq_url,
            settings.topology,
            store,
            owner=f"{process_name()}-{uuid4().hex[:8]}",
            lease=settings.projector_lease,
            rescue_after=settings.rescue_after,
            relay=settings.relay_events,
            job_retention=settings.job_retention,
            max_payload=settings.max_payload,
        )
        # Jobs on the whole view run here, in processes of their own, because workers have no database. Deliveries to
        # webhooks need it too; they have a worker of their own, because they are many and mostly wait.
        builtin_worker = _worker(settings, builtin.topology_of(settings), "builtin", BUILTIN_JOBS)
        webhook_worker = _worker(
            settings, settings.topology.with_queues([WEBHOOK_QUEUE]), "webhooks", concurrency=DELIVERIES
        )
        return _PartGroup(projector, builtin_worker, webhook_worker)

    try:
        asyncio.run(run_part("projector", make, settings, lifeline))
    finally:
        store.close()


def _worker(settings: Settings, topology: Topology, name: str, concurrency: int) -> Worker:
    return Worker(
        settings.rabbitmq_url,
        topology,
        builtin.job_types(),
        concurrency=concurrency,
        grace=settings.grace_period,
        max_result=settings.max_result,
        ack_timeout=settings.ack_timeout,
        unknown_type_timeout=settings.unknown_type_timeout,
        name=f"{process_name()}-{name}",
    )


class _PartGroup:
    """Several parts in one process; when one fails, all stop."""

    def __init__(self, *parts: RunnablePart) -> None:
        self._parts = parts

    @property
    def fault(self) -> str | None:
        """The fault of the first part that has one."""
        return next(filter(None, (part.fault for part in self._parts)), None)

    async def run(self, stop: asyncio.Event) -> None:
        """Run all parts until ``stop`` is set or one of them fails."""
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(part.run(stop))
