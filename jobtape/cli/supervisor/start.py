"""``jobtape up`` and ``jobtape worker``: run several processes under a supervisor."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

from jobtape.cli.errors import OK, CannotStart
from jobtape.cli.parts.start import settings_with
from jobtape.cli.supervisor.child import Output
from jobtape.cli.supervisor.supervisor import Supervisor
from jobtape.settings import Settings


def run_up(**options: str | None) -> int:
    """Run API, workers and projector until SIGTERM or SIGINT; returns the exit code. Raises CannotStart."""
    settings = settings_with(**options)
    if not settings.jobs:
        raise CannotStart(
            "no job modules are named: say which to load with --jobs or JOBTAPE_JOBS, for example "
            "`jobtape up --jobs examples.jobs`"
        )
    # Several parts cannot share one port, and the API shows the health of all.
    os.environ["JOBTAPE_HEALTH_PORT"] = "0"
    parts = ("api", *_worker_names(settings.processes), "projector")
    # Memory of many listeners returns to the system after they have disconnected: see producer/live/memory_trim.py.
    allocator = {} if "PYTHONMALLOC" in os.environ else {"PYTHONMALLOC": "malloc"}
    return _supervise(settings, parts, ", ".join(parts), {"api": allocator})


def run_workers(**options: str | None) -> int:
    """Run jobs until SIGTERM or SIGINT, and return the exit code. Raises CannotStart.

    One worker runs in this process. Several are restarted when they end; they use consecutive health ports.
    """
    settings = settings_with(**options)
    if settings.processes == 1:
        from jobtape.cli.parts.worker import run_worker  # noqa: PLC0415  # a supervisor does not need it

        run_worker()
        return OK
    names = _worker_names(settings.processes)
    port = settings.health_port
    variables = {name: {"JOBTAPE_HEALTH_PORT": str(port + i)} for i, name in enumerate(names)} if port else {}
    return _supervise(settings, names, f"{len(names)} workers", variables)


def _supervise(
    settings: Settings, parts: Sequence[str], description: str, variables: Mapping[str, Mapping[str, str]]
) -> int:
    """Run these parts (``api``, ``worker-2``), with additional environment variables by part. Returns the exit code."""
    os.environ["JOBTAPE_PROCESSES"] = "1"
    os.environ["PYTHONUNBUFFERED"] = "1"
    # -P: the current folder is added to the path when the job modules are loaded, so it cannot shadow our imports.
    commands = {part: (sys.executable, "-P", "-m", "jobtape", part.partition("-")[0]) for part in parts}
    output = Output(parts, as_json=settings.log_format == "json")
    supervisor = Supervisor(commands, grace=settings.grace_period, output=output, variables=variables)
    output.note(f"starting {description}; Ctrl-C stops them")
    return asyncio.run(supervisor.run())


def _worker_names(processes: int) -> tuple[str, ...]:
    return ("worker",) if processes == 1 else tuple(f"worker-{i}" for i in range(1, processes + 1))
