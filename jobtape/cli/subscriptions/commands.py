"""The subcommand ``subscriptions``: what stands on broker and view for the names of ``jobtape.subscribe``."""

from typing import Annotated

import typer

from jobtape.cli.options import Json

subscriptions = typer.Typer(help="Durable subscriptions: their positions and queues.", no_args_is_help=True)


def register(app: typer.Typer, panel: str) -> None:
    """Add it to the command."""
    app.add_typer(subscriptions, name="subscriptions", rich_help_panel=panel)


@subscriptions.command("list")
def list_(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Look for the queues of these as well.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List those with a position (`since=`), and the queues as far as the broker shows them, or of the names given."""
    from jobtape.cli.subscriptions import subscriptions as command  # noqa: PLC0415

    raise typer.Exit(command.list_them(names or [], as_json=as_json))


@subscriptions.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="As `jobtape.subscribe(name=…)` has it.")]) -> None:
    """Remove a subscription's queue, with all that waits on it, and its position."""
    from jobtape.cli.subscriptions import subscriptions as command  # noqa: PLC0415

    raise typer.Exit(command.remove(name))
