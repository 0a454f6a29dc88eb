"""``jobtape worker``: one worker in this process, or several under a supervisor."""

import asyncio
import os
import sys

from jobtape.cli.parts.start import settings_with
from jobtape.cli.supervisor.output import Output
from jobtape.cli.supervisor.supervisor import Supervisor


def run_workers(**options: str | None) -> int:
    """Run jobs until SIGTERM or SIGINT; the exit code. Raises CannotStart.

    Several processes are started again when they end, and have health ports one after the other.
    """
    settings = settings_with(**options)
    if settings.processes == 1:
        from jobtape.cli.parts.parts import run_worker  # noqa: PLC0415  # a supervisor needs none of it

        run_worker()
        return 0
    os.environ["JOBTAPE_PROCESSES"] = "1"
    os.environ["PYTHONUNBUFFERED"] = "1"
    names = workers(settings.processes)
    port = settings.health_port
    variables = {name: {"JOBTAPE_HEALTH_PORT": str(port + i)} for i, name in enumerate(names)} if port else {}
    output = Output(names)
    supervisor = Supervisor(
        {name: command(name) for name in names}, grace=settings.grace_period, output=output, variables=variables
    )
    output.say(f"starting {len(names)} workers; Ctrl-C stops them")
    return asyncio.run(supervisor.run())


def workers(processes: int) -> tuple[str, ...]:
    """The names of so many worker processes."""
    return ("worker",) if processes == 1 else tuple(f"worker-{i}" for i in range(1, processes + 1))


def command(part: str) -> tuple[str, ...]:
    """The command line of a part, which may be one of several of its kind."""
    # -P: the current folder joins the path where the job modules are loaded, and not before our own imports.
    return (sys.executable, "-P", "-m", "jobtape", part.partition("-")[0])
