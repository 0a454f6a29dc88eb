"""The subcommands for repairs: ``redrive``, ``dead`` and ``doctor``."""

from typing import Annotated

import typer

from jobtape.cli.options import DEFAULT_URL, AppDir, Jobs, Json, Labels, Since, Some, Until, Url

REPAIRS = "Put it right"

dead = typer.Typer(help="Show messages on work queues that are not jobs.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the subcommands to ``app``."""
    app.command(rich_help_panel=REPAIRS)(redrive)
    app.add_typer(dead, name="dead", rich_help_panel=REPAIRS)
    app.command(rich_help_panel=REPAIRS)(doctor)


def redrive(
    job_ids: Annotated[Some, typer.Argument(metavar="ID", help="The jobs' ids; leave them out to use filters.")] = None,
    job_type: Annotated[Some, typer.Option("--type", metavar="TYPE", help="Only jobs of this type.")] = None,
    queue: Annotated[Some, typer.Option(metavar="NAME", help="Only jobs of this queue.")] = None,
    label: Labels = None,
    state: Annotated[
        Some, typer.Option(metavar="STATE", help="Only jobs that ended in this state.  [dim]\\[default: failed][/dim]")
    ] = None,
    reason: Annotated[
        Some,
        typer.Option(
            metavar="REASON", help="Only jobs that failed for this reason: error, timeout, lost, crash_loop, …"
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show how many jobs match, and which.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Run jobs again that have ended; a filter given several times matches any of its values."""
    from jobtape.cli.rest import redrive as command  # noqa: PLC0415
    from jobtape.cli.times import time_of  # noqa: PLC0415

    query: dict[str, object] = {
        "type": job_type,
        "queue": queue,
        "label": label,
        "state": state,
        "reason": reason,
        "since": time_of("--since", since),
        "until": time_of("--until", until),
    }
    given = {name: value for name, value in query.items() if value}
    raise typer.Exit(command.redrive(url, job_ids or [], given, dry_run=dry_run, yes=yes, as_json=as_json))


@dead.command("list")
def dead_list(
    limit: Annotated[int, typer.Option(help="The largest number of messages.")] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the messages, newest first."""
    from jobtape.cli.rest import dead_messages as command  # noqa: PLC0415

    raise typer.Exit(command.dead_list(url, limit, as_json=as_json))


@dead.command("show")
def dead_show(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="The number that `jobtape dead list` shows.")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show one message with its body."""
    from jobtape.cli.rest import dead_messages as command  # noqa: PLC0415

    raise typer.Exit(command.dead_show(url, number, as_json=as_json))


def doctor(jobs: Jobs = None, app_dir: AppDir = None, as_json: Json = False) -> None:
    """Check broker, view, workers and settings, and show what is wrong and what to do; exit code 1 if anything is."""
    from jobtape.cli.doctor.doctor import run_doctor  # noqa: PLC0415

    raise typer.Exit(run_doctor(as_json=as_json, jobs=jobs, app_dir=app_dir))
