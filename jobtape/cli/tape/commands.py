"""The subcommands that read the tape again: ``rebuild``, ``replay``, ``shadow``, ``export`` and ``import``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobtape.cli.options import DEFAULT_URL, Json, Labels, Since, Some, Until, Url

AGAIN = "Replay"
Detach = Annotated[bool, typer.Option("--detach", help="Only submit the job and print its id.")]


def register(app: typer.Typer) -> None:
    """Add the subcommands to ``app``."""
    app.command(rich_help_panel=AGAIN)(rebuild)
    app.command(rich_help_panel=AGAIN)(replay)
    app.command(rich_help_panel=AGAIN)(shadow)
    app.command(rich_help_panel=AGAIN)(export)
    app.command("import", rich_help_panel=AGAIN)(import_)


def rebuild(
    source: Annotated[
        Literal["archive", "stream"],
        typer.Option(
            "--from", help="Read the events that the view has kept (archive), or the tape on the broker (stream)."
        ),
    ] = "archive",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    examples: Annotated[int, typer.Option(help="How many changed jobs are shown.")] = 10,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Build the view again from all events, show what changes, and switch to the new view."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    payload = {"source": source, "dry_run": dry_run, "examples": examples}
    raise typer.Exit(jobs.run_builtin(url, "jobtape.rebuild", payload, detach=detach, as_json=as_json))


def replay(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="An existing queue on the broker.")],
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="Start here: a time (local, or with a zone), a cursor, or first.")
    ] = "first",
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="End here: a time (local, or with a zone) or a cursor.")
    ] = None,
    event: Annotated[Some, typer.Option(metavar="EVENT", help="Only these events: succeeded, failed, …")] = None,
    job_type: Annotated[
        Some, typer.Option("--type", metavar="TYPE", help="Only jobs of this type, such as mail.send or mail.*")
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only this job.")] = None,
    label: Labels = None,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="The largest number of events per second, at least 0.001.")
    ] = None,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send past events to a queue, in the form that subscribers receive; no job runs again."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415
    from jobtape.cli.times import place_of  # noqa: PLC0415

    order = {
        "queue": queue,
        "since": place_of("--since", since),
        "until": place_of("--until", until),
        "events": event,
        "types": job_type,
        "job": job,
        "labels": dict(map(jobs.label_of, label or [])),
        "rate": rate,
    }
    given = _given(order)
    raise typer.Exit(jobs.run_builtin(url, "jobtape.replay", given, detach=detach, as_json=as_json))


def shadow(
    job_type: Annotated[Some, typer.Option("--type", metavar="TYPE", help="Only jobs of this type.")] = None,
    state: Annotated[
        Some, typer.Option(metavar="STATE", help="Only jobs that ended in this state: succeeded or failed.")
    ] = None,
    queue: Annotated[Some, typer.Option(metavar="NAME", help="Only jobs of this queue.")] = None,
    label: Labels = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="The largest number of jobs, newest first.")] = 1000,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Run past jobs with today's handlers and show whose outcome differs, without changing anything."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415
    from jobtape.cli.times import time_of  # noqa: PLC0415

    wanted = {
        "type": job_type,
        "state": state,
        "queue": queue,
        "labels": dict(map(jobs.label_of, label or [])),
        "since": time_of("--since", since),
        "until": time_of("--until", until),
        "limit": limit,
    }
    given = _given(wanted)
    raise typer.Exit(jobs.run_builtin(url, "jobtape.shadow", given, detach=detach, as_json=as_json))


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, compressed; it must not exist.")],
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="Start here: a time (local, or with a zone), a cursor, or first.")
    ] = "first",
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="End here: a time (local, or with a zone) or a cursor.")
    ] = None,
) -> None:
    """Write all events that the view has kept to a file, for example as a backup; needs DATABASE_URL."""
    from jobtape.cli.tape.export import run_export  # noqa: PLC0415

    raise typer.Exit(run_export(file, since=since, until=until))


def import_(file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `jobtape export` wrote.")]) -> None:
    """Publish the events of a file in this empty installation, whose projector must run; no job runs again."""
    from jobtape.cli.tape.import_ import run_import  # noqa: PLC0415

    raise typer.Exit(run_import(file))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given: 0 counts, an empty list does not."""
    return {name: value for name, value in options.items() if value is not None and value not in ([], {})}
