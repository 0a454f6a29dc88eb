"""``jobtape redrive`` and ``cancel``: act on jobs by their ids, or on all that a filter matches, by a built-in job."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import connect, job_path, post_json
from jobtape.cli.commands.jobs import submit_and_print
from jobtape.cli.errors import OK, WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.options import (
    DEFAULT_URL,
    ErrorText,
    Failures,
    Json,
    Labels,
    OnlyQueues,
    OnlyTypes,
    PayloadValues,
    Reasons,
    ResultValues,
    Several,
    SubmittedSince,
    SubmittedUntil,
    Url,
)
from jobtape.cli.values import given, labels_of, values_of

SHOWN: Final = 10

Ids = Annotated[
    Several, typer.Argument(metavar="ID", help="The jobs' ids; leave them out to use filters.", show_default=False)
]
Most = Annotated[
    int | None,
    typer.Option(metavar="NUMBER", help="The largest number of jobs, newest first.  [dim]\\[default: all][/dim]"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show how many jobs match, and which.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait: print the id of the job that does it.")]


def redrive(
    job_ids: Ids = None,
    job_type: OnlyTypes = None,
    queue: OnlyQueues = None,
    label: Labels = None,
    state: Annotated[
        Several,
        typer.Option(metavar="STATE", help="Only jobs that ended in this state.  [dim]\\[default: failed][/dim]"),
    ] = None,
    reason: Reasons = None,
    failure: Failures = None,
    error: ErrorText = None,
    payload: PayloadValues = None,
    result: ResultValues = None,
    since: SubmittedSince = None,
    until: SubmittedUntil = None,
    limit: Most = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Run ended jobs again. Several values of one filter match any of them; a job must have all given labels."""
    filters = given(
        type=job_type,
        queue=queue,
        labels=labels_of(label),
        state=state,
        reason=reason,
        failure=failure,
        error=error,
        payload=values_of("--payload", payload),
        result=values_of("--result", result),
        since=since,
        until=until,
        limit=limit,
    )
    if _by_ids(job_ids, filters, dry_run):
        return _each(url, job_ids or (), "redrive", lambda job: f"run {job['run']}", as_json)
    return _all(url, "redrive", "Run them again?", filters, dry_run, yes, detach, as_json)


def cancel(
    job_ids: Ids = None,
    job_type: OnlyTypes = None,
    queue: OnlyQueues = None,
    label: Labels = None,
    state: Annotated[
        Several, typer.Option(metavar="STATE", help="Only jobs in this state.  [dim]\\[default: all open][/dim]")
    ] = None,
    reason: Reasons = None,
    failure: Failures = None,
    error: ErrorText = None,
    payload: PayloadValues = None,
    since: SubmittedSince = None,
    until: SubmittedUntil = None,
    limit: Most = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    detach: Detach = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Request that jobs are cancelled; a job that ends first keeps its result."""
    filters = given(
        type=job_type,
        queue=queue,
        labels=labels_of(label),
        state=state,
        reason=reason,
        failure=failure,
        error=error,
        payload=values_of("--payload", payload),
        since=since,
        until=until,
        limit=limit,
    )
    if _by_ids(job_ids, filters, dry_run):
        return _each(url, job_ids or (), "cancel", _cancellation, as_json)
    return _all(url, "cancel", "Cancel them?", filters, dry_run, yes, detach, as_json)


def _by_ids(job_ids: Several, filters: Mapping[str, Any], dry_run: bool) -> bool:
    if job_ids and filters:
        raise WrongUse("name the jobs or give a filter, not both")
    if job_ids and dry_run:
        raise WrongUse("--dry-run works only with filters: it shows which jobs match")
    if not job_ids and not filters:
        raise WrongUse("give ids of jobs, or a filter, such as --type or --state")
    return bool(job_ids)


def _each(
    url: str, job_ids: Sequence[str], action: str, words: Callable[[Mapping[str, Any]], str], as_json: bool
) -> int:
    with connect(url) as api:
        jobs = [api.request("POST", f"{job_path(job_id)}/{action}").content for job_id in job_ids]
    if as_json:
        show.print_json(jobs[0] if len(jobs) == 1 else {"items": jobs})
    else:
        for job in jobs:
            print(one_line(f"{job['id']} {words(job)}"))
    return OK


def _cancellation(job: Mapping[str, Any]) -> str:
    return "cancelled" if job["state"] == "cancelled" else f"requested; the job was {job['state']}"


def _all(
    url: str,
    action: Literal["redrive", "cancel"],
    question: str,
    filters: Mapping[str, Any],
    dry_run: bool,
    yes: bool,
    detach: bool,
    as_json: bool,
) -> int:
    if dry_run or not yes:
        if not dry_run and not sys.stdin.isatty():
            raise WrongUse("stdin is not a terminal, so nobody can confirm: check with --dry-run, then give --yes")
        with connect(url) as api:
            found = post_json(api, f"/{action}s", {**filters, "dry_run": True})
        show.print_json(found) if dry_run and as_json else _print_preview(found)
        if dry_run or not found["matched"] or input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            return OK
    order = {"type": f"jobtape.{action}", "payload": filters}
    return submit_and_print(url, order, wait=not detach, as_json=as_json)


def _print_preview(found: Mapping[str, Any]) -> None:
    for job_id in found["ids"][:SHOWN]:
        print(one_line(job_id))
    if found["matched"] > SHOWN:
        print("…")
    number = f"{found['matched']} or more" if found["more"] else found["matched"]
    print(f"{number} jobs match; nothing was changed", file=sys.stderr)
