"""The ``jobtape`` command: which subcommands and options there are. What they do is in ``jobtape.commands``, imported
only when it is needed, so that ``--help`` is quick.
"""

import sys
from typing import Annotated

import typer

from jobtape.commands.options import (
    AppDir,
    Concurrency,
    Grace,
    Host,
    Jobs,
    LogLevel,
    Port,
    Workers,
)
from jobtape.schemas.errors import JobtapeError

app = typer.Typer(
    name="jobtape",
    help="Jobs for FastAPI on a durable tape of events in RabbitMQ.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
SERVERS = "Run it"
CLIENTS = "Use a running one"


def main() -> None:
    """Run the command line and end the process.

    0: done; 1: a job failed, or something did not work; 2: the call or the configuration is wrong; 128 and more: ended
    by a signal. An error of ours is one line on stderr, a broken job module its author's traceback.
    """
    from jobtape.commands.starting import CANNOT_START, BrokenModule, CannotStart  # noqa: PLC0415

    try:
        app()
    except BrokenModule as broken:
        _fail(str(broken), CANNOT_START)
    except CannotStart as error:
        _fail(f"jobtape: {error}", CANNOT_START)
    except JobtapeError as error:
        _fail(f"jobtape: {error}", 1)


def _fail(text: str, code: int) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr)
    sys.exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"jobtape {version('jobtape')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    del version


@app.command(rich_help_panel=SERVERS)
def up(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    concurrency: Concurrency = None,
    grace: Grace = None,
    log_level: LogLevel = None,
) -> None:
    """Run all parts on this machine: api, worker and projector, started again when they die."""
    from jobtape.commands.up import run_up  # noqa: PLC0415

    raise typer.Exit(
        run_up(
            jobs=jobs,
            app_dir=app_dir,
            host=host,
            port=port,
            api_workers=workers,
            concurrency=concurrency,
            grace=grace,
            log_level=log_level,
        )
    )


@app.command(rich_help_panel=SERVERS)
def api(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    grace: Grace = None,
    log_level: LogLevel = None,
) -> None:
    """Take jobs and tell their status over HTTP."""
    from jobtape.commands.api import run_api  # noqa: PLC0415

    run_api(jobs=jobs, app_dir=app_dir, host=host, port=port, api_workers=workers, grace=grace, log_level=log_level)


@app.command(rich_help_panel=SERVERS)
def worker(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    concurrency: Concurrency = None,
    queues: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            envvar="JOBTAPE_QUEUES",
            help="Serve these queues only, comma-separated.  [dim]\\[default: those of the job types][/dim]",
        ),
    ] = None,
    grace: Grace = None,
    log_level: LogLevel = None,
) -> None:
    """Run jobs. Its health is on JOBTAPE_HEALTH_PORT when that is set."""
    from jobtape.commands.parts import run_worker  # noqa: PLC0415

    run_worker(queues, jobs=jobs, app_dir=app_dir, concurrency=concurrency, grace=grace, log_level=log_level)


@app.command(rich_help_panel=SERVERS)
def projector(log_level: LogLevel = None) -> None:
    """Keep the view: fold the tape into the database, or stand by. Its health is on JOBTAPE_HEALTH_PORT when that is
    set.
    """
    from jobtape.commands.parts import run_projector  # noqa: PLC0415

    run_projector(log_level=log_level)
