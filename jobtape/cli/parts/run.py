"""Runs a worker or projector in this process until SIGTERM or SIGINT, with its health checks."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Protocol

from jobtape.cli.parts.lifeline import Lifeline
from jobtape.cli.parts.signals import stop_on_signals
from jobtape.cli.parts.start import configuring
from jobtape.process import forks
from jobtape.process import loggers as own_loggers
from jobtape.settings import Settings


class RunnablePart(Protocol):
    """The interface that workers and projectors share."""

    @property
    def fault(self) -> str | None:
        """Why the part does not work at the moment; None while it works."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then stop in order."""


async def run_part(
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
    """Serve the health checks, on any address and without a key: the probes of Kubernetes come from other hosts."""
    if settings.health_port == 0:
        return nullcontext()
    from jobtape.cli.parts.serving import health  # noqa: PLC0415  # imports the web framework

    return health(settings.host, settings.health_port, name, lambda: part.fault, settings.api_key)


def process_name() -> str:
    """Return a name for this process: host and process id."""
    return f"{socket.gethostname()}-{os.getpid()}"
