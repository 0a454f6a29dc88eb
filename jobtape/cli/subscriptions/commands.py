"""The subcommand ``subscriptions``: queues and positions of the subscriptions made with ``jobtape.subscribe``."""

from typing import Annotated

import typer

from jobtape.cli.options import Json

subscriptions = typer.Typer(help="List and remove durable subscriptions.", no_args_is_help=True)


def register(app: typer.Typer, panel: str) -> None:
    """Add the subcommand to ``app``."""
    app.add_typer(subscriptions, name="subscriptions", rich_help_panel=panel)


@subscriptions.command("list")
def list_(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Also look for the queues of these names.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the subscriptions that have a position (`since=`) or a queue that the broker shows."""
    from jobtape.cli.subscriptions import subscriptions as command  # noqa: PLC0415

    raise typer.Exit(command.list_them(names or [], as_json=as_json))


@subscriptions.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="The name given to `jobtape.subscribe`.")]) -> None:
    """Remove a subscription's position, and its queue with all events that wait on it."""
    from jobtape.cli.subscriptions import subscriptions as command  # noqa: PLC0415

    raise typer.Exit(command.remove(name))
