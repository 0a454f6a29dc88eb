"""What every part does before it runs: read the settings, load the job types and check them.

An error here would occur again at the next start. So the process ends with code 2, and a supervisor does not
restart it.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jobtape
from jobtape.cli.errors import BrokenModule, CannotStart
from jobtape.cli.escaping import one_line
from jobtape.environment import is_loopback, is_service_address
from jobtape.jobs import JobType
from jobtape.loading import load_job_types
from jobtape.schemas.errors import DatabaseUnfit, JobtapeError, ViewUnavailable
from jobtape.schemas.job_types.secrets import check_keys
from jobtape.schemas.queueing.lanes import queues_of
from jobtape.schemas.timeouts import check_timeouts, longest_timeout
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings, read_settings, service_notes

if TYPE_CHECKING:
    from jobtape.view.store import Store

_OURS: Final = (
    f"{Path(jobtape.__file__).parent}{os.sep}",
    f"{Path(importlib.__file__).parent}{os.sep}",
    "<frozen importlib",
)


def settings_with(**options: str | None) -> Settings:
    """Read the settings. Options of the command line replace the environment's values.

    The options are written to the environment, so that child processes have them too. Variables that Kubernetes set for
    a Service are removed, with a line on stderr. Raises CannotStart.
    """
    for name, value in options.items():
        assert name in Settings.model_fields, name
        if value is not None:
            _put(f"JOBTAPE_{name.upper()}", value)
    for variable, note in service_notes().items():
        print(f"jobtape: {one_line(note)}", file=sys.stderr)
        del os.environ[variable]
    with configuring():
        return read_settings()


def _put(variable: str, value: str) -> None:
    # Typer also passes environment variables as options. Only a value that was typed is the user's mistake.
    if is_service_address(value) and value != os.environ.get(variable):
        raise CannotStart(f"{variable}: {value} is the address of a Service: give a port number")
    os.environ[variable] = value


@contextmanager
def configuring() -> Iterator[None]:
    """Turn each JobtapeError in the block into CannotStart."""
    try:
        yield
    except CannotStart:
        raise
    except JobtapeError as error:
        raise CannotStart(str(error)) from None


@contextmanager
def opened_view(settings: Settings) -> "Iterator[Store]":
    """Give the view for the block. Raises CannotStart for a wrong DATABASE_URL."""
    from jobtape.view.store import Store  # noqa: PLC0415  # workers need no database

    with configuring():
        store = Store(settings.database_url)
    with closing(store):
        yield store


def job_types_of(settings: Settings) -> dict[str, JobType]:
    """Load the job types of JOBTAPE_JOBS. Raises CannotStart, or BrokenModule when a user's module fails."""
    with configuring():
        if not settings.jobs:
            raise CannotStart(
                "no job modules are named: say which to load with --jobs or JOBTAPE_JOBS, for example "
                "JOBTAPE_JOBS=examples.jobs"
            )
        try:
            return load_job_types(settings.jobs, settings.app_dir)
        except JobtapeError:
            raise
        except SystemExit as error:
            raise CannotStart(
                f"a module of JOBTAPE_JOBS ended the process on import (exit code {error.code}): "
                "move that under `if __name__ == '__main__':`"
            ) from None
        except Exception as error:  # noqa: BLE001  # users' code can raise anything
            raise BrokenModule(_without_us(error)) from None


def fitting_job_types_of(settings: Settings) -> dict[str, JobType]:
    """Load the job types as ``job_types_of`` does. Raises CannotStart for a timeout that the broker does not allow."""
    job_types = job_types_of(settings)
    with configuring():
        check_keys({name: job_type.secrets for name, job_type in job_types.items()})
        check_timeouts(job_types.values(), longest_timeout(settings.ack_timeout, settings.grace_period))
    return job_types


def topology_of(settings: Settings, job_types: Mapping[str, JobType]) -> Topology:
    """Return the topology with the work queues of JOBTAPE_QUEUES, or those of all job types when that is empty, with
    their lanes.
    """
    return settings.topology.with_queues(queues_of(job_types.values(), settings.queues))


def _without_us(error: BaseException) -> str:
    """Format the traceback without the frames of Jobtape and of Python's import system."""
    whole = traceback.TracebackException.from_exception(error)
    shown: traceback.TracebackException | None = whole
    while shown is not None:
        theirs = [frame for frame in shown.stack if not frame.filename.startswith(_OURS)]
        shown.stack = traceback.StackSummary.from_list(theirs)
        shown = shown.__cause__ or shown.__context__
    return "".join(whole.format()).rstrip()


def refuse_exposure(settings: Settings) -> None:
    """Raise CannotStart when the API would listen beyond this machine without a key."""
    if settings.api_key is None and not is_loopback(settings.host):
        raise CannotStart(
            f"refusing to listen on {settings.host} without an API key: set JOBTAPE_API_KEY, or JOBTAPE_HOST=127.0.0.1"
        )


def refuse_unfit(store: "Store") -> None:
    """Raise DatabaseUnfit when the database answers but can never hold a view. One that does not answer is accepted."""
    try:
        store.checkpoint()
    except DatabaseUnfit:
        raise
    except ViewUnavailable:
        pass


def unbuffered() -> None:
    """Flush stdout and stderr after each line, so that output of handlers appears at once also in a pipe."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
