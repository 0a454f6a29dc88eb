"""``jobtape up``, ``api``, ``worker``, ``projector`` and ``outbox`` run Jobtape, or one part of it. ``init`` and
``destroy`` create and remove what they need.

Each parameter has the name of the setting that it replaces; ``parts.start.settings_with`` reads all of them.
"""

from typing import Annotated

import typer

from jobtape.cli.options import (
    ApiWorkers,
    AppDir,
    Concurrency,
    GracePeriod,
    Host,
    Jobs,
    Json,
    LogLevel,
    OutboxUrl,
    Port,
    Processes,
    Queues,
)


def up(
    context: typer.Context,
    jobs: Jobs = None,
    app_dir: AppDir = None,
    host: Host = None,
    port: Port = None,
    api_workers: ApiWorkers = None,
    processes: Processes = None,
    concurrency: Concurrency = None,
    grace_period: GracePeriod = None,
    log_level: LogLevel = None,
) -> int:
    """Run API, worker and projector on this machine, and restart each one that ends."""
    from jobtape.cli.supervisor.start import run_up  # noqa: PLC0415

    return run_up(**context.params)


def api(
    context: typer.Context,
    jobs: Jobs = None,
    app_dir: AppDir = None,
    host: Host = None,
    port: Port = None,
    api_workers: ApiWorkers = None,
    grace_period: GracePeriod = None,
    log_level: LogLevel = None,
) -> None:
    """Run the REST API, which accepts jobs and shows their status."""
    from jobtape.cli.parts.api import run_api  # noqa: PLC0415

    run_api(**context.params)


def worker(
    context: typer.Context,
    jobs: Jobs = None,
    app_dir: AppDir = None,
    processes: Processes = None,
    concurrency: Concurrency = None,
    queues: Queues = None,
    grace_period: GracePeriod = None,
    log_level: LogLevel = None,
) -> int:
    """Run a worker, which executes jobs."""
    from jobtape.cli.supervisor.start import run_workers  # noqa: PLC0415

    return run_workers(**context.params)


def projector(log_level: LogLevel = None) -> None:
    """Run a projector, which keeps the status of all jobs up to date, or stand by while another one does."""
    from jobtape.cli.parts.projector import run_projector  # noqa: PLC0415

    run_projector(log_level=log_level)


def outbox(
    outbox_url: OutboxUrl = None,
    jobs: Jobs = None,
    app_dir: AppDir = None,
    log_level: LogLevel = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Only show how many jobs wait, and those that cannot be published.")
    ] = False,
    remove: Annotated[
        str | None, typer.Option(metavar="ID", help="Only remove this job, which cannot be published.")
    ] = None,
    prune_inbox: Annotated[
        int | None,
        typer.Option(metavar="DAYS", min=1, max=36_500, help="Only remove rows of the inbox that are older."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Publish the jobs that an application has submitted in transactions of its own database."""
    from jobtape.cli.parts import outbox as part  # noqa: PLC0415

    if prune_inbox is not None:
        return part.prune_inbox(prune_inbox, as_json=as_json, outbox_url=outbox_url)
    if list_ or remove is not None:
        return part.show_or_remove(remove, as_json=as_json, outbox_url=outbox_url)
    part.run_outbox(outbox_url=outbox_url, jobs=jobs, app_dir=app_dir, log_level=log_level)
    return 0


def init(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    accept_gap: Annotated[
        bool,
        typer.Option(
            "--accept-gap", help="Continue after a gap in the tape; the view will never contain the missing events."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Create what is missing on the broker and in the database, and leave the rest unchanged."""
    from jobtape.cli.parts.init import run_init  # noqa: PLC0415

    run_init(accept_gap=accept_gap, as_json=as_json, jobs=jobs, app_dir=app_dir)


def destroy(
    jobs: Jobs = None,
    app_dir: AppDir = None,
    view: Annotated[bool, typer.Option("--view", help="Also remove the view: its tables, or its SQLite file.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Do it although workers or projectors are connected.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> int:
    """Remove the namespace with its tape, queues and exchanges from the broker. Nothing brings them back."""
    from jobtape.cli.parts.destroy import run_destroy  # noqa: PLC0415

    return run_destroy(view=view, force=force, yes=yes, as_json=as_json, jobs=jobs, app_dir=app_dir)
