"""``jobtape submit``, ``status``, ``cancel``, ``list``, ``events`` and ``watch``: use the REST API."""

from typing import Annotated

import typer

from jobtape.cli.errors import WrongUse
from jobtape.cli.options import (
    DEFAULT_URL,
    AsOf,
    JobId,
    Json,
    Labels,
    OnlyQueues,
    OnlyTypes,
    Several,
    SubmittedSince,
    SubmittedUntil,
    Url,
)


def submit(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload; @FILE reads a file, - reads stdin.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end and print its result.")] = False,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="The queue, instead of the job type's.")] = None,
    label: Labels = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long the job may run, instead of the job type's timeout."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Repeating the submission under the same key makes only one job."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a job and print its id."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415
    from jobtape.cli.values import labels_of, payload_of  # noqa: PLC0415
    from jobtape.schemas.submission import Options, submission_body  # noqa: PLC0415

    content = payload_of(payload)
    submission = submission_body(
        job_type, content, Options(queue=queue, labels=dict(labels_of(label)), timeout=timeout)
    )
    raise typer.Exit(jobs.submit(url, submission, wait=wait, idempotency_key=idempotency_key, as_json=as_json))


def status(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show the state of a job."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    if watch and as_of is not None:
        raise WrongUse("--watch shows the present: leave out --as-of")
    raise typer.Exit(jobs.status(url, job_id, as_of=as_of, follow=watch, as_json=as_json))


def cancel(job_id: JobId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Request that a job is cancelled; a job that ends first keeps its result."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    raise typer.Exit(jobs.cancel(url, job_id, as_json=as_json))


def list_(
    job_type: OnlyTypes = None,
    state: Annotated[Several, typer.Option(metavar="STATE", help="Only jobs in this state.")] = None,
    queue: OnlyQueues = None,
    label: Labels = None,
    reason: Annotated[Several, typer.Option(metavar="REASON", help="Only jobs that failed for this reason.")] = None,
    since: SubmittedSince = None,
    until: SubmittedUntil = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", help="The largest number of jobs.")] = 20,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first. Several values of one filter match any of them; a job must have all given labels."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415
    from jobtape.cli.values import labels_of, time_of  # noqa: PLC0415

    filters = {
        "type": job_type,
        "state": state,
        "queue": queue,
        "label": [":".join(pair) for pair in labels_of(label)],
        "reason": reason,
        "since": time_of("--since", since),
        "until": time_of("--until", until),
    }
    raise typer.Exit(jobs.list_jobs(url, filters, limit, as_of=as_of, as_json=as_json))


def events(job_id: JobId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Show the events of a job in the tape's order."""
    from jobtape.cli.rest import jobs  # noqa: PLC0415

    raise typer.Exit(jobs.events(url, job_id, as_json=as_json))


def watch(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            help="<event>.<job type>, for example succeeded, failed.billing.* or *.mail.send.",
            show_default=False,
        ),
    ] = "*",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Start here: a time (local, or with a zone), a cursor, or first.  [dim]\\[default: now][/dim]",
        ),
    ] = None,
    label: Labels = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show events as they happen, until Ctrl-C."""
    from jobtape.cli.rest.watch import watch_events  # noqa: PLC0415

    raise typer.Exit(watch_events(url, pattern, since, label, as_json=as_json))
