"""``jobtape worker`` and ``jobtape projector``: run one part in this process until a signal."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Final, Protocol
from uuid import uuid4

from jobtape import builtin, forks
from jobtape import loggers as own_loggers
from jobtape.cli import log_output as logs
from jobtape.cli.parts.lifeline import Lifeline
from jobtape.cli.parts.signals import end_now, stop_on_signals
from jobtape.cli.parts.start import configuring, job_types_of, refuse_exposure, refuse_unfit, settings_with, unbuffered
from jobtape.jobs import JobType
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings

BUILTIN_JOBS: Final = 2
"""How many built-in jobs one projector process runs at the same time."""


class RunnablePart(Protocol):
    """The interface that workers and projectors share."""

    @property
    def trouble(self) -> str | None:
        """Why the part does not work at the moment; None while it works."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then stop in order."""


class BuildParts:
    """Several parts in one process; when one fails, all stop."""

    def __init__(self, *parts: RunnablePart) -> None:
        self._parts = parts

    @property
    def trouble(self) -> str | None:
        """The trouble of the first part that has one."""
        return next(filter(None, (part.trouble for part in self._parts)), None)

    async def run(self, stop: asyncio.Event) -> None:
        """Run all parts until ``stop`` is set or one of them fails."""
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(part.run(stop))


def run_worker(**options: str | None) -> None:
    """Run jobs until SIGTERM or SIGINT, and return when running jobs have ended or were returned to their queues.

    Raises CannotStart, and WorkerStuck when handlers that never end occupy all slots.
    """
    lifeline = Lifeline()
    settings = settings_with(**options)
    logs.configure("worker", settings.log_level)
    unbuffered()
    job_types = job_types_of(settings)
    topology = topology_of(settings, job_types)
    from jobtape.cli.parts.submitting import submissions  # noqa: PLC0415  # --help needs no AMQP
    from jobtape.consumer.worker.worker import Worker  # noqa: PLC0415

    made: list[Worker] = []

    def make() -> RunnablePart:
        worker = Worker(
            settings.rabbitmq_url,
            topology,
            job_types,
            concurrency=settings.concurrency,
            grace=settings.grace_period,
            max_result=settings.max_result,
            ack_timeout=settings.ack_timeout,
            unknown_type_timeout=settings.unknown_type_timeout,
            name=_name(),
            modules=settings.jobs,
        )
        made.append(worker)
        return worker

    try:
        asyncio.run(_run("worker", make, settings, lifeline, lambda: submissions(settings, job_types, _name())))
    finally:
        if made and made[0].stuck_handlers:  # Python waits for its threads at exit, and these never end
            end_now(1 if sys.exc_info()[0] else 0)


def run_projector(**options: str | None) -> None:
    """Fold the tape into the view, or stand by, until SIGTERM or SIGINT. Raises CannotStart."""
    lifeline = Lifeline()
    settings = settings_with(**options)
    logs.configure("projector", settings.log_level)
    from jobtape.consumer.projector.projector import Projector  # noqa: PLC0415  # --help needs no SQL
    from jobtape.consumer.worker.worker import Worker  # noqa: PLC0415
    from jobtape.view.store import Store  # noqa: PLC0415

    with configuring():
        store = Store(settings.database_url)
        refuse_unfit(store)

    def make() -> RunnablePart:
        projector = Projector(
            settings.rabbitmq_url,
            settings.topology,
            store,
            owner=f"{_name()}-{uuid4().hex[:8]}",
            lease=settings.projector_lease,
            rescue_after=settings.rescue_after,
            relay=settings.relay_events,
            keep=settings.job_retention,
        )
        # Jobs on the whole view run here, in processes of their own, because workers have no database.
        builtin_worker = Worker(
            settings.rabbitmq_url,
            builtin.topology_of(settings),
            builtin.job_types(),
            concurrency=BUILTIN_JOBS,
            grace=settings.grace_period,
            max_result=settings.max_result,
            ack_timeout=settings.ack_timeout,
            unknown_type_timeout=settings.unknown_type_timeout,
            name=f"{_name()}-builtin",
        )
        return BuildParts(projector, builtin_worker)

    try:
        asyncio.run(_run("projector", make, settings, lifeline))
    finally:
        store.close()


def topology_of(settings: Settings, job_types: Mapping[str, JobType]) -> Topology:
    """Return the topology with the work queues of JOBTAPE_QUEUES, or those of all job types when that is empty."""
    return settings.topology.with_queues(settings.queues or (job_type.queue for job_type in job_types.values()))


async def _run(
    name: str,
    make: Callable[[], RunnablePart],
    settings: Settings,
    lifeline: Lifeline,
    around: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> None:
    """Run one part until a signal. ``around``: a context that is entered while the part runs."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    own_loggers.protect_new()  # the loggers of modules that were imported meanwhile
    # Handlers run elsewhere, so a forked child can close everything on this loop.
    forks.on_fork(asyncio.get_running_loop(), partial(forks.detach_loop, sockets=True))
    with configuring():
        part = make()
    async with around(), _health(name, part, settings):
        lifeline.configured()
        await part.run(stop)


def _health(name: str, part: RunnablePart, settings: Settings) -> AbstractAsyncContextManager[None]:
    if settings.health_port == 0:
        return nullcontext()
    refuse_exposure(settings)
    from jobtape.cli.parts.health import health  # noqa: PLC0415  # imports the web framework

    return health(settings.host, settings.health_port, name, lambda: part.trouble)


def _name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
