"""``jobtape rebuild``, ``replay``, ``shadow``, ``export`` and ``import``: read the history again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobtape.cli.commands.jobs import submit_and_print
from jobtape.cli.options import (
    DEFAULT_URL,
    FromPosition,
    Json,
    Labels,
    OnlyQueues,
    OnlyTypes,
    Several,
    SubmittedSince,
    SubmittedUntil,
    UntilPosition,
    Url,
)
from jobtape.cli.values import given, labels_of, position_of

Detach = Annotated[bool, typer.Option("--detach", help="Only submit the job and print its id.")]


def rebuild(
    source: Annotated[
        Literal["archive", "stream"],
        typer.Option(
            "--from", help="Read the events that the view has kept (archive), or the tape on the broker (stream)."
        ),
    ] = "archive",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    examples: Annotated[
        int, typer.Option(metavar="NUMBER", help="How many jobs of each kind of change are shown.")
    ] = 10,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Build the view again from all events, show what changes, and switch to the new view."""
    return _run(url, "rebuild", given(source=source, dry_run=dry_run, examples=examples), detach, as_json)


def replay(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="An existing queue on the broker.")],
    since: FromPosition = "first",
    until: UntilPosition = None,
    event: Annotated[Several, typer.Option(metavar="EVENT", help="Only these events: succeeded, failed, …")] = None,
    job_type: Annotated[
        Several, typer.Option("--type", metavar="TYPE", help="Only jobs of this type, such as mail.send or mail.*")
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only this job.")] = None,
    label: Labels = None,
    rate: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="The largest number of events per second, at least 0.001.")
    ] = None,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Send past events to a queue, in the form that subscribers receive; no job runs again."""
    start, end = position_of("--since", since), position_of("--until", until)
    labels = labels_of(label)
    request = given(
        queue=queue, since=start, until=end, events=event, types=job_type, job=job, labels=labels, rate=rate
    )
    return _run(url, "replay", request, detach, as_json)


def shadow(
    job_type: OnlyTypes = None,
    state: Annotated[
        Several, typer.Option(metavar="STATE", help="Only jobs that ended in this state: succeeded or failed.")
    ] = None,
    queue: OnlyQueues = None,
    label: Labels = None,
    since: SubmittedSince = None,
    until: SubmittedUntil = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", help="The largest number of jobs, newest first.")] = 1000,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Run past jobs with today's handlers and show whose outcome differs, without changing anything."""
    labels = labels_of(label)
    request = given(type=job_type, state=state, queue=queue, labels=labels, since=since, until=until, limit=limit)
    return _run(url, "shadow", request, detach, as_json)


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, compressed; it must not exist.")],
    since: FromPosition = "first",
    until: UntilPosition = None,
    as_json: Json = False,
) -> int:
    """Write all events that the view has kept to a file, for example as a backup; needs DATABASE_URL."""
    from jobtape.cli.tape.export import run_export  # noqa: PLC0415

    return run_export(file, since=since, until=until, as_json=as_json)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `jobtape export` wrote.")],
    as_json: Json = False,
) -> int:
    """Import a file into an empty installation, whose projector must be running; no job runs again."""
    from jobtape.cli.tape.import_ import run_import  # noqa: PLC0415

    return run_import(file, as_json=as_json)


def _run(url: str, name: str, payload: Mapping[str, Any], detach: bool, as_json: bool) -> int:
    return submit_and_print(url, {"type": f"jobtape.{name}", "payload": payload}, wait=not detach, as_json=as_json)
