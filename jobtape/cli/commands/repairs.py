"""``jobtape redrive``, ``workers``, ``dead``, ``subscriptions`` and ``doctor``: find and repair faults."""

import base64
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import ask, connect, job_path, post_json
from jobtape.cli.errors import FAILED, OK, WrongUse
from jobtape.cli.escaping import lines, one_line
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
from jobtape.cli.values import given

if TYPE_CHECKING:
    from jobtape import SyncClient

PAGE: Final = 2000
"""Jobs in one request."""
SHOWN: Final = 10
COUNTS: Final = ("matched", "accepted", "refused", "unknown")


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
) -> int:
    """Run ended jobs again. Several values of one filter match any of them; a job must have all given labels."""
    filters = given(type=job_type, queue=queue, label=label, state=state, reason=reason, since=since, until=until)
    if job_ids and filters:
        raise WrongUse("name the jobs or give a filter, not both")
    if job_ids and dry_run:
        raise WrongUse("--dry-run works only with filters: it shows which jobs match")
    if not job_ids and not filters:
        raise WrongUse("say which jobs: by their ids, or by a filter, such as --type or --state failed")
    with connect(url) as api:
        if job_ids:
            return _redrive_each(api, job_ids, as_json)
        if not (dry_run or yes):
            _confirm(api, filters)
        total = _redrive_pages(api, filters, dry_run)
    show.print_json(total) if as_json else _print_result(total)
    return OK if total["refused"] == total["unknown"] == 0 else FAILED


def workers(as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """List the workers and what they run."""
    found = ask(url, "GET", "/workers")
    show.print_json(found) if as_json else show.print_workers(found)


def dead_list(
    limit: Annotated[int, typer.Option(metavar="NUMBER", help="The largest number of messages.")] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the messages, newest first."""
    page = ask(url, "GET", "/dead", params={"limit": limit})
    if as_json:
        show.print_json(page)
        return
    show.print_dead(page)
    if not page["items"]:
        print("none; jobs that failed are in `jobtape list --state failed`", file=sys.stderr)


def dead_show(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="The number that `jobtape dead list` shows.")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show one message with its body."""
    message = ask(url, "GET", f"/dead/{number}")
    if as_json:
        show.print_json(message)
        return
    print(one_line(f"kept since {message['at']}, {message['size']} bytes: {message['reason']}"), file=sys.stderr)
    body = b"" if message["base64"] is None else base64.b64decode(message["base64"])
    if message["text"] is not None:
        print(lines(message["text"]))
    elif sys.stdout.isatty():  # binary data is escaped for a terminal and written unchanged to a file
        print(lines(body.decode("utf-8", "backslashreplace")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(body)


def subscriptions_list(
    names: Annotated[
        Several, typer.Argument(metavar="NAME", help="Also show the queues of these names.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> int:
    """List the durable subscriptions that have a position (`since=`), or a queue that the broker shows."""
    from jobtape.cli import subscriptions  # noqa: PLC0415

    return subscriptions.list_all(names or [], as_json=as_json)


def subscriptions_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name given to `jobtape.subscribe`.")],
) -> int:
    """Remove a subscription's position, and its queue with all events that wait on it."""
    from jobtape.cli import subscriptions  # noqa: PLC0415

    return subscriptions.remove(name)


def doctor(jobs: Jobs = None, app_dir: AppDir = None, as_json: Json = False) -> int:
    """Check broker, view, workers and settings; print faults and what to do. Exit code 1 if anything is wrong."""
    from jobtape.cli.doctor.doctor import run_doctor  # noqa: PLC0415

    return run_doctor(as_json=as_json, jobs=jobs, app_dir=app_dir)


def _redrive_each(api: "SyncClient", job_ids: Sequence[str], as_json: bool) -> int:
    jobs = [api.request("POST", f"{job_path(job_id)}/redrive").content for job_id in job_ids]
    if as_json:
        show.print_json({"items": jobs})
    else:
        for job in jobs:
            print(one_line(f"{job['id']} run {job['run']}"))
    return OK


def _confirm(api: "SyncClient", filters: Mapping[str, Any]) -> None:
    if not sys.stdin.isatty():
        raise WrongUse("stdin is not a terminal, so nobody can confirm: check with --dry-run, then give --yes")
    found = _redrive_pages(api, filters, dry_run=True)
    _print_result(found)
    if found["matched"] == 0 or input("Run them again? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SystemExit(OK)


def _redrive_pages(api: "SyncClient", filters: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    """Redrive all pages, from the newest job to the oldest, and return the totals."""
    total: dict[str, Any] = {"dry_run": dry_run, **dict.fromkeys(COUNTS, 0)}
    ids: list[str] = []
    cursor: str | None = None
    while True:
        position = {} if cursor is None else {"cursor": cursor}
        page = post_json(api, "/redrives", {**filters, **position, "dry_run": dry_run, "limit": PAGE})
        for name in COUNTS:
            total[name] += page[name]
        ids += page["ids"]
        cursor = page["next"]
        # An unconfirmed job means that the broker has stopped, so the next page would fail too.
        if cursor is None or page["unknown"]:
            return {**total, "ids": ids[:100]}


def _print_result(total: Mapping[str, Any]) -> None:
    for job_id in total["ids"][:SHOWN]:
        print(one_line(job_id))
    if total["matched"] > SHOWN:
        print("…")
    if total["dry_run"]:
        print(f"{total['matched']} jobs match; nothing was changed", file=sys.stderr)
        return
    print(f"{total['accepted']} of {total['matched']} jobs run again", file=sys.stderr)
    if total["refused"]:
        print(
            f"{total['refused']} were not redriven: their submissions are not kept, or the broker stopped",
            file=sys.stderr,
        )
    if total["unknown"]:
        print(
            f"{total['unknown']} may have been redriven or not: repeat the command, no job is redriven twice",
            file=sys.stderr,
        )
