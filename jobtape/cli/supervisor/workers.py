"""``jobtape worker``: runs one worker in this process, or several under a supervisor."""

import asyncio
import os
import sys

from jobtape.cli.parts.start import settings_with
from jobtape.cli.supervisor.output import Output
from jobtape.cli.supervisor.supervisor import Supervisor


def run_workers(**options: str | None) -> int:
    """Run jobs until SIGTERM or SIGINT, and return the exit code. Raises CannotStart.

    Several processes are restarted when they end; they use consecutive health ports.
    """
    settings = settings_with(**options)
    if settings.processes == 1:
        from jobtape.cli.parts.parts import run_worker  # noqa: PLC0415  # a supervisor does not need it

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
    output.note(f"starting {len(names)} workers; Ctrl-C stops them")
    return asyncio.run(supervisor.run())


def workers(processes: int) -> tuple[str, ...]:
    """Return the names of this number of worker processes."""
    return ("worker",) if processes == 1 else tuple(f"worker-{i}" for i in range(1, processes + 1))


def command(part: str) -> tuple[str, ...]:
    """Return the command line of a part, such as ``api`` or ``worker-2``."""
    # -P: the current folder is added to the path when the job modules are loaded, so it cannot shadow our imports.
    return (sys.executable, "-P", "-m", "jobtape", part.partition("-")[0])
