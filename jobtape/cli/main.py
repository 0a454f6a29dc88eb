"""The ``jobtape`` command with its subcommands and options.

Each subcommand imports its code only when it runs, so that ``--help`` is quick.
"""

import sys
from typing import Annotated, NoReturn

import typer

from jobtape.cli import repair_commands as cli_repair
from jobtape.cli.errors import WRONG, BrokenModule, WrongUse
from jobtape.cli.escaping import lines, one_line
from jobtape.cli.options import (
    DEFAULT_URL,
    AppDir,
    AsOf,
    Concurrency,
    Grace,
    Host,
    JobId,
    Jobs,
    Json,
    Labels,
    LogLevel,
    Port,
    Processes,
    Queues,
    Since,
    Some,
    Until,
    Url,
    Workers,
)
from jobtape.cli.output_streams import UNWRITTEN, flushed, output_failed, prepare_streams
from jobtape.cli.subscriptions import commands as cli_subscriptions
from jobtape.cli.tape import commands as tape_commands
from jobtape.schemas.errors import JobtapeError

app = typer.Typer(
    name="jobtape",
    help="Jobs for FastAPI on a durable tape of events in RabbitMQ.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
SERVERS = "Run it"
CLIENTS = "Use a running one"
TRAVELLERS = ("list", "status")
"""The subcommands that can show the past."""


def main() -> None:
    """Run the command line and end the process.

    Exit codes: 0 done; 1 a job failed, or something did not work; 2 the call or the configuration is wrong; 128 and
    above ended by a signal. Errors of Jobtape are one line on stderr; a job module that cannot be imported shows its
    own traceback.
    """
    prepare_streams()
    try:
        app(prog_name="jobtape")
    except SystemExit as end:
        raise SystemExit(flushed(end.code)) from None
    except OSError as error:
        if error.errno not in UNWRITTEN:
            raise
        sys.exit(output_failed(error))
    except BrokenModule as broken:
        _fail(lines(str(broken)), WRONG)
    except WrongUse as error:
        _fail(f"jobtape: {one_line(str(error))}", WRONG)
    except JobtapeError as error:
        _fail(f"jobtape: {one_line(str(error))}", 1)


def _fail(text: str, code: int) -> NoReturn:
    code = flushed(code)
    print(text, file=sys.stderr)
    sys.exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"jobtape {version('jobtape')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    as_of: AsOf = None,
) -> None:
    del version
    if as_of is not None:
        if context.invoked_subcommand not in TRAVELLERS:
            raise WrongUse(f"--as-of works only with {' and '.join(TRAVELLERS)}: leave it out")
        context.default_map = {context.invoked_subcommand: {"as_of": as_of}}


@app.command(rich_help_panel=SERVERS)
def up(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    processes: Processes = None,
    concurrency: Concurrency = None,
    grace: Grace = None,
    log_level: LogLevel = None,
) -> None:
    """Run API, worker and projector on this machine, and restart each one that ends."""
    from jobtape.cli.supervisor.up import run_up  # noqa: PLC0415

    raise typer.Exit(
        run_up(
            jobs=jobs,
            app_dir=app_dir,
            host=host,
            port=port,
            api_workers=workers,
            processes=processes,
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
    """Run the REST API, which accepts jobs and shows their status."""
    from jobtape.cli.parts.api import run_api  # noqa: PLC0415

    run_api(jobs=jobs, app_dir=app_dir, host=host, port=port, api_workers=workers, grace=grace, log_level=log_level)


@app.command(rich_help_panel=SERVERS)
def worker(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    processes: Processes = None,
    concurrency: Concurrency = None,
    queues: Queues = None,
    grace: Grace = None,
    log_level: LogLevel = None,
) -> None:
    """Run a worker, which executes jobs."""
    from jobtape.cli.supervisor.workers import run_workers  # noqa: PLC0415

    raise typer.Exit(
        run_workers(
            jobs=jobs,
            app_dir=app_dir,
            queues=queues,
            processes=processes,
            concurrency=concurrency,
            grace=grace,
            log_level=log_level,
        )
    )


@app.command(rich_help_panel=SERVERS)
def projector(log_level: LogLevel = None) -> None:
    """Run a projector, which folds the tape into the view, or stands by while another one does."""
    from jobtape.cli.parts.parts import run_projector  # noqa: PLC0415

    run_projector(log_level=log_level)


@app.command(rich_help_panel=SERVERS)
def init(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    accept_gap: Annotated[
        bool,
        typer.Option("--accept-gap", help="Continue after a gap in the tape; the missing events are lost to the view."),
    ] = False,
) -> None:
    """Create what is missing on the broker and in the database, and leave the rest unchanged."""
    from jobtape.cli.parts.init import run_init  # noqa: PLC0415

    run_init(accept_gap=accept_gap, jobs=jobs, app_dir=app_dir)


@app.command(rich_help_panel=CLIENTS)
def submit(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload; @FILE reads a file, - reads stdin.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end and print its result.")] = False,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="The queue, instead of the job type's.")] = None,
    label: Labels = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long the job may run, instead of the job type's timeout."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same submission under the same key makes only one job."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a job and print its id."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    code = jobs.submit(
        url,
        job_type,
        payload,
        wait=wait,
        queue=queue,
        labels=label or [],
        timeout=timeout,
        idempotency_key=idempotency_key,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(rich_help_panel=CLIENTS)
def status(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show the state of a job."""
    from jobtape.cli.rest import jobs, time_travel  # noqa: PLC0415

    if as_of is None:
        raise typer.Exit(jobs.status(url, job_id, follow=watch, as_json=as_json))
    if watch:
        raise WrongUse("--watch shows the present: leave out --as-of")
    raise typer.Exit(time_travel.status(url, job_id, as_of, as_json=as_json))


@app.command(rich_help_panel=CLIENTS)
def cancel(job_id: JobId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Request that a job is cancelled; a job that ends first keeps its result."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    raise typer.Exit(jobs.cancel(url, job_id, as_json=as_json))


@app.command("list", rich_help_panel=CLIENTS)
def list_(
    job_type: Annotated[Some, typer.Option("--type", metavar="TYPE", help="Only jobs of this type.")] = None,
    state: Annotated[Some, typer.Option(metavar="STATE", help="Only jobs in this state.")] = None,
    queue: Annotated[Some, typer.Option(metavar="NAME", help="Only jobs of this queue.")] = None,
    label: Labels = None,
    reason: Annotated[Some, typer.Option(metavar="REASON", help="Only jobs that failed for this reason.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="The largest number of jobs.")] = 20,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first; a filter given several times matches any of its values."""
    from jobtape.cli.rest import jobs, time_travel  # noqa: PLC0415
    from jobtape.cli.times import time_of  # noqa: PLC0415

    some = {"type": job_type, "state": state, "queue": queue, "reason": reason}
    one = {"since": time_of("--since", since), "until": time_of("--until", until), "limit": str(limit)}
    query = jobs.filters(some, one, label or [])
    if as_of is None:
        raise typer.Exit(jobs.list_jobs(url, query, as_json=as_json))
    raise typer.Exit(time_travel.list_jobs(url, query, as_of, limit, as_json=as_json))


@app.command(rich_help_panel=CLIENTS)
def events(job_id: JobId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Show the events of a job in the tape's order."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    raise typer.Exit(jobs.events(url, job_id, as_json=as_json))


@app.command(rich_help_panel=CLIENTS)
def watch(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="[PATTERN]",
            help="<event>.<job type>, for example succeeded, failed.billing.* or *.mail.send.",
            show_default=False,
        ),
    ] = "*",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Start here: a time (local, or with a zone), a cursor, or first.  [dim]\\[default: now][/dim]",
        ),
    ] = None,
    label: Labels = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show events as they happen, until Ctrl-C."""
    from jobtape.cli.rest import watch as command  # noqa: PLC0415

    raise typer.Exit(command.watch_events(url, pattern, since, label or [], as_json=as_json))


cli_repair.register(app)
cli_subscriptions.register(app, CLIENTS)
tape_commands.register(app)
