"""The subcommands that play the tape again: ``rebuild``."""

from typing import Annotated, Literal

import typer

from jobtape.commands.options import DEFAULT_URL, Json, Url

AGAIN = "Play it again"
Detach = Annotated[bool, typer.Option("--detach", help="Only submit it; prints the job's id.")]


def register(app: typer.Typer) -> None:
    """Add them to the command."""
    app.command(rich_help_panel=AGAIN)(rebuild)


def rebuild(
    source: Annotated[
        Literal["archive", "stream"],
        typer.Option("--from", help="Fold what the view has kept of all events, or the tape itself as far as it goes."),
    ] = "archive",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would differ.")] = False,
    examples: Annotated[int, typer.Option(help="How many jobs that differ are shown.")] = 10,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Fold all events into a new generation of the view, show what differs, and let it serve."""
    from jobtape.commands import jobs  # noqa: PLC0415

    payload = {"source": source, "dry_run": dry_run, "examples": examples}
    raise typer.Exit(jobs.run_builtin(url, "jobtape.rebuild", payload, detach=detach, as_json=as_json))
