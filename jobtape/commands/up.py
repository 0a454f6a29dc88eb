"""``jobtape up``: all parts on this machine."""

import asyncio
import os
import sys

from jobtape.commands.errors import CannotStart
from jobtape.commands.output import Output
from jobtape.commands.starting import settings_with
from jobtape.commands.supervisor import Supervisor

PARTS = ("api", "worker", "projector")


def run_up(**options: str | None) -> int:
    """Run api, worker and projector until SIGTERM or SIGINT; returns the exit code. Raises CannotStart."""
    settings = settings_with(**options)
    if not settings.jobs:
        raise CannotStart(
            "no job modules are named: say which to load with --jobs or JOBTAPE_JOBS, for example "
            "`jobtape up --jobs examples.jobs`"
        )
    # Two parts cannot share one port; the API tells the health of all.
    os.environ["JOBTAPE_HEALTH_PORT"] = "0"
    os.environ["PYTHONUNBUFFERED"] = "1"
    output = Output(PARTS)
    # -P: the current folder joins the path where the job modules are loaded, and not before our own imports.
    commands = {part: (sys.executable, "-P", "-m", "jobtape", part) for part in PARTS}
    supervisor = Supervisor(commands, grace=settings.grace, output=output)
    output.say(f"starting {', '.join(PARTS)}; Ctrl-C stops them")
    return asyncio.run(supervisor.run())
