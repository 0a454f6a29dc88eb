"""Everything that a part does before it runs, and how it says that it cannot.

What goes wrong here will go wrong again: the process ends with code 2, which says to a supervisor not to try again.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jobtape
from jobtape.cli.errors import BrokenModule, CannotStart
from jobtape.cli.escaping import one_line
from jobtape.environment import is_service_address
from jobtape.jobs import JobType
from jobtape.loading import load_job_types
from jobtape.schemas.errors import DatabaseUnfit, JobtapeError, ViewUnavailable
from jobtape.schemas.timeouts import check_timeouts, longest_timeout
from jobtape.settings import Settings, read_settings, service_notes

if TYPE_CHECKING:
    from jobtape.view.store import Store

_OURS: Final = (
    f"{Path(jobtape.__file__).parent}{os.sep}",
    f"{Path(importlib.__file__).parent}{os.sep}",
    "<frozen importlib",
)


def settings_with(**options: str | None) -> Settings:
    """The settings, where an option of the command line goes before the environment.

    The options are put into the environment, so that every process started from here has them too. What Kubernetes
    has put there for a Service is taken away, after one line on stderr about it. Raises CannotStart.
    """
    for name, value in options.items():
        if value is not None:
            _put(f"JOBTAPE_{name.upper()}", value)
    for variable, note in service_notes().items():
        print(f"jobtape: {one_line(note)}", file=sys.stderr)
        del os.environ[variable]
    with configuring():
        return read_settings()


def _put(variable: str, value: str) -> None:
    # Typer gives a variable of the environment as the option, too; typed by somebody it is a mistake.
    if is_service_address(value) and value != os.environ.get(variable):
        raise CannotStart(f"{variable}: {value} is the address of a Service: give a number")
    os.environ[variable] = value


@contextmanager
def configuring() -> Iterator[None]:
    """Errors of ours inside are faults of the configuration: they become CannotStart."""
    try:
        yield
    except CannotStart:
        raise
    except JobtapeError as error:
        raise CannotStart(str(error)) from None


def job_types_of(settings: Settings) -> dict[str, JobType]:
    """The job types of JOBTAPE_JOBS. Raises CannotStart, or BrokenModule when a module of the user's fails."""
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
        except Exception as error:  # noqa: BLE001  # whatever their code raises is theirs to see
            raise BrokenModule(_without_us(error)) from None


def fitting_job_types_of(settings: Settings) -> dict[str, JobType]:
    """The same, of which each must have a time-out that the broker waits for. Raises what ``job_types_of`` does."""
    job_types = job_types_of(settings)
    with configuring():
        check_timeouts(job_types.values(), longest_timeout(settings.ack_timeout, settings.grace_period))
    return job_types


def _without_us(error: BaseException) -> str:
    """The traceback without the frames that are ours or the import machinery's."""
    whole = traceback.TracebackException.from_exception(error)
    shown: traceback.TracebackException | None = whole
    while shown is not None:
        theirs = [frame for frame in shown.stack if not frame.filename.startswith(_OURS)]
        shown.stack = traceback.StackSummary.from_list(theirs)
        shown = shown.__cause__ or shown.__context__
    return "".join(whole.format()).rstrip()


def refuse_exposure(settings: Settings) -> None:
    """Raises CannotStart when the address is open to others and nothing protects it."""
    from jobtape.app import check_exposure  # noqa: PLC0415  # brings the web framework along

    with configuring():
        check_exposure(settings)


def refuse_unfit(store: "Store") -> None:
    """Raises DatabaseUnfit when the database answers and can never hold a view. One that is away is waited for."""
    try:
        store.checkpoint()
    except DatabaseUnfit:
        raise
    except ViewUnavailable:
        pass


def unbuffered() -> None:
    """Let what a handler prints appear line by line also when stdout is a pipe."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
