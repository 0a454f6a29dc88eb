"""``jobtape redrive``, ``dead``, ``subscriptions`` and ``doctor``: find and repair faults."""

from typing import Annotated

import typer

from jobtape.cli.options import (
    DEFAULT_URL,
    AppDir,
    Jobs,
    Json,
    Labels,
    OnlyQueues,
    OnlyTypes,
    Several,
    SubmittedSince,
    SubmittedUntil,
    Url,
)


def redrive(
    job_ids: Annotated[
        Several, typer.Argument(metavar="ID", help="The jobs' ids; leave them out to use filters.", show_default=False)
    ] = None,
    job_type: OnlyTypes = None,
    queue: OnlyQueues = None,
    label: Labels = None,
    state: Annotated[
        Several,
        typer.Option(metavar="STATE", help="Only jobs that ended in this state.  [dim]\\[default: failed][/dim]"),
    ] = None,
    reason: Annotated[
        Several,
        typer.Option(
            metavar="REASON", help="Only jobs that failed for this reason: error, timeout, lost, crash_loop, …"
        ),
    ] = None,
    since: SubmittedSince = None,
    until: SubmittedUntil = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show how many jobs match, and which.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Run ended jobs again. Several values of one filter match any of them; a job must have all given labels."""
    from jobtape.cli.rest.repairs import redrive as run  # noqa: PLC0415
    from jobtape.cli.values import labels_of, time_of  # noqa: PLC0415

    filters: dict[str, object] = {
        "type": job_type,
        "queue": queue,
        "label": [":".join(pair) for pair in labels_of(label)],
        "state": state,
        "reason": reason,
        "since": time_of("--since", since),
        "until": time_of("--until", until),
    }
    given = {name: value for name, value in filters.items() if value}
    raise typer.Exit(run(url, job_ids or [], given, dry_run=dry_run, yes=yes, as_json=as_json))


def dead_list(
    limit: Annotated[int, typer.Option(metavar="NUMBER", help="The largest number of messages.")] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the messages, newest first."""
    from jobtape.cli.rest import repairs  # noqa: PLC0415

    raise typer.Exit(repairs.dead_list(url, limit, as_json=as_json))


def dead_show(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="The number that `jobtape dead list` shows.")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show one message with its body."""
    from jobtape.cli.rest import repairs  # noqa: PLC0415

    raise typer.Exit(repairs.dead_show(url, number, as_json=as_json))


def subscriptions_list(
    names: Annotated[
        Several, typer.Argument(metavar="NAME", help="Also show the queues of these names.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the durable subscriptions that have a position (`since=`), or a queue that the broker shows."""
    from jobtape.cli import subscriptions  # noqa: PLC0415

    raise typer.Exit(subscriptions.list_all(names or [], as_json=as_json))


def subscriptions_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name given to `jobtape.subscribe`.")],
) -> None:
    """Remove a subscription's position, and its queue with all events that wait on it."""
    from jobtape.cli import subscriptions  # noqa: PLC0415

    raise typer.Exit(subscriptions.remove(name))


def doctor(jobs: Jobs = None, app_dir: AppDir = None, as_json: Json = False) -> None:
    """Check broker, view, workers and settings; print faults and what to do. Exit code 1 if anything is wrong."""
    from jobtape.cli.doctor.doctor import run_doctor  # noqa: PLC0415

    raise typer.Exit(run_doctor(as_json=as_json, jobs=jobs, app_dir=app_dir))
