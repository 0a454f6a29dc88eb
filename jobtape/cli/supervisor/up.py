"""``jobtape up``: runs all parts on this machine."""

import asyncio
import os

from jobtape.cli.errors import CannotStart
from jobtape.cli.parts.start import settings_with
from jobtape.cli.supervisor.output import Output
from jobtape.cli.supervisor.supervisor import Supervisor
from jobtape.cli.supervisor.workers import command, workers


def run_up(**options: str | None) -> int:
    """Run api, worker and projector until SIGTERM or SIGINT; returns the exit code. Raises CannotStart."""
    settings = settings_with(**options)
    if not settings.jobs:
        raise CannotStart(
            "no job modules are named: say which to load with --jobs or JOBTAPE_JOBS, for example "
            "`jobtape up --jobs examples.jobs`"
        )
    # Two parts cannot share one port, and the API shows the health of all.
    os.environ["JOBTAPE_HEALTH_PORT"] = "0"
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ["JOBTAPE_PROCESSES"] = "1"
    parts = ("api", *workers(settings.processes), "projector")
    output = Output(parts)
    supervisor = Supervisor(
        {part: command(part) for part in parts},
        grace=settings.grace_period,
        output=output,
        variables={"api": _allocator()},
    )
    output.note(f"starting {', '.join(parts)}; Ctrl-C stops them")
    return asyncio.run(supervisor.run())


def _allocator() -> dict[str, str]:
    # Memory of many listeners returns to the system after they have disconnected: see producer/live/memory_trim.py.
    return {} if "PYTHONMALLOC" in os.environ else {"PYTHONMALLOC": "malloc"}
