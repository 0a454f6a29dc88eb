"""``jobtape broker``: uses RabbitMQ's management API, or prints what to do."""

from typing import Annotated

import typer

from jobtape.cli.options import Json


def users(
    apply: Annotated[
        bool, typer.Option("--apply", help="Create the users and print a RABBITMQ_URL for each new one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the rabbitmqctl commands that create a user with the least permissions for each part."""
    from jobtape.cli.broker_users import run_users  # noqa: PLC0415

    run_users(apply=apply, as_json=as_json)
