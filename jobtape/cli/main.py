"""The ``jobtape`` command: which subcommands and options there are. What they do is in ``jobtape.cli``, imported
only when it is needed, so that ``--help`` is quick.
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

    0: done; 1: a job failed, or something did not work; 2: the call or the configuration is wrong; 128 and more: ended
    by a signal. An error of ours is one line on stderr, a broken job module its author's traceback.
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
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
    as_of: AsOf = None,
) -> None:
    del version
    if as_of is not None:
        if context.invoked_subcommand not in TRAVELLERS:
            raise WrongUse(f"--as-of is for reading: {' and '.join(TRAVELLERS)} can show the past")
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
    """Run all parts on this machine: api, worker and projector, started again when they die."""
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
    """Run the API: submit jobs and read their status over HTTP."""
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
    """Run jobs, each process up to the concurrency at once."""
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
    """Keep the view: fold the tape into the database, or stand by."""
    from jobtape.cli.parts.parts import run_projector  # noqa: PLC0415

    run_projector(log_level=log_level)


@app.command(rich_help_panel=SERVERS)
def init(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    accept_gap: Annotated[
        bool,
        typer.Option("--accept-gap", help="Go on behind a gap in the tape: what is missing is lost to the view."),
    ] = False,
) -> None:
    """Make what is missing on the broker and in the database; what is there stays."""
    from jobtape.cli.parts.init import run_init  # noqa: PLC0415

    run_init(accept_gap=accept_gap, jobs=jobs, app_dir=app_dir)


@app.command(rich_help_panel=CLIENTS)
def submit(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload; @FILE reads a file, - reads stdin.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end and print the result.")] = False,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="The queue, when not the job type's own.")] = None,
    label: Labels = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long it may run, when not as long as the job type's.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Submitting the same again under the same key is one job, and prints its id."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a job; prints its id."""
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
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show a job."""
    from jobtape.cli.rest import jobs, time_travel  # noqa: PLC0415

    if as_of is None:
        raise typer.Exit(jobs.status(url, job_id, follow=watch, as_json=as_json))
    if watch:
        raise WrongUse("--watch follows what happens now: leave out --as-of")
    raise typer.Exit(time_travel.status(url, job_id, as_of, as_json=as_json))


@app.command(rich_help_panel=CLIENTS)
def cancel(job_id: JobId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Ask for a job's end; the tape decides whether it came in time."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    raise typer.Exit(jobs.cancel(url, job_id, as_json=as_json))


@app.command("list", rich_help_panel=CLIENTS)
def list_(
    job_type: Annotated[Some, typer.Option("--type", metavar="TYPE", help="Only of this job type.")] = None,
    state: Annotated[Some, typer.Option(metavar="STATE", help="Only in this state.")] = None,
    queue: Annotated[Some, typer.Option(metavar="NAME", help="Only of this queue.")] = None,
    label: Labels = None,
    reason: Annotated[Some, typer.Option(metavar="REASON", help="Only those that failed so.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 20,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first; an option given several times means any of the values."""
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
    """Show what happened to a job, in the tape's order."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    raise typer.Exit(jobs.events(url, job_id, as_json=as_json))


@app.command(rich_help_panel=CLIENTS)
def watch(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="[PATTERN]",
            help="<event>.<job type>: succeeded, failed.billing.*, *.mail.send.",
            show_default=False,
        ),
    ] = "*",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="From here on: a time (here, or with a zone), a cursor, or first.  [dim]\\[default: now][/dim]",
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
