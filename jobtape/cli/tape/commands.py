"""The subcommands that play the tape again: ``rebuild``, ``replay``, ``shadow``, ``export`` and
``import``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobtape.cli.options import DEFAULT_URL, Json, Labels, Since, Some, Until, Url

AGAIN = "Play it again"
Detach = Annotated[bool, typer.Option("--detach", help="Only submit it; prints the job's id.")]


def register(app: typer.Typer) -> None:
    """Add them to the command."""
    app.command(rich_help_panel=AGAIN)(rebuild)
    app.command(rich_help_panel=AGAIN)(replay)
    app.command(rich_help_panel=AGAIN)(shadow)
    app.command(rich_help_panel=AGAIN)(export)
    app.command("import", rich_help_panel=AGAIN)(import_)


def rebuild(
    source: Annotated[
        Literal["archive", "stream"],
        typer.Option("--from", help="Fold what the view has kept of all events, or the tape itself as far as it goes."),
    ] = "archive",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would differ.")] = False,
    examples: Annotated[int, typer.Option(help="How many jobs that differ are shown.")] = 10,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Fold all events into a new generation of the view, show what differs, and let it serve."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    payload = {"source": source, "dry_run": dry_run, "examples": examples}
    raise typer.Exit(jobs.run_builtin(url, "jobtape.rebuild", payload, detach=detach, as_json=as_json))


def replay(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue on the broker; it must exist.")],
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="From here on: a time (here, or with a zone), a cursor, or first.")
    ] = "first",
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Up to here: a time (here, or with a zone) or a cursor.")
    ] = None,
    event: Annotated[Some, typer.Option(metavar="EVENT", help="Only such events: succeeded, failed, …")] = None,
    job_type: Annotated[Some, typer.Option("--type", metavar="TYPE", help="Only of this job type, or mail.*")] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only of this job.")] = None,
    label: Labels = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Events a second at most: 0.001 or more.")] = None,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Publish past events to a queue, as subscribers got them; no handler runs."""
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
    job_type: Annotated[Some, typer.Option("--type", metavar="TYPE", help="Only of this job type.")] = None,
    state: Annotated[Some, typer.Option(metavar="STATE", help="Those that ended so: succeeded, failed.")] = None,
    queue: Annotated[Some, typer.Option(metavar="NAME", help="Only of this queue.")] = None,
    label: Labels = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="How many at most, the newest first.")] = 1000,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Run past jobs with today's handlers and name those whose outcome changes; nothing else is changed."""
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
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Is written, compressed; must not exist.")],
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="From here on: a time (here, or with a zone), a cursor, or first.")
    ] = "first",
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Up to here: a time (here, or with a zone) or a cursor.")
    ] = None,
) -> None:
    """Write the tape, as far as the view has kept it, to a file; needs DATABASE_URL. It is also the backup."""
    from jobtape.cli.tape.export import run_export  # noqa: PLC0415

    raise typer.Exit(run_export(file, since=since, until=until))


def import_(file: Annotated[Path, typer.Argument(metavar="FILE", help="As `jobtape export` wrote it.")]) -> None:
    """Put the tape of a file into this empty installation, whose projector runs; nothing of it runs again by itself."""
    from jobtape.cli.tape.import_ import run_import  # noqa: PLC0415

    raise typer.Exit(run_import(file))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """What was said: a 0 is something, an empty list is not."""
    return {name: value for name, value in options.items() if value is not None and value not in ([], {})}
