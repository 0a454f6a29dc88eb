"""``jobtape redrive`` and ``jobtape dead``. Each function returns the exit code and raises JobtapeError."""

import base64
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobtape import SyncClient
from jobtape.cli import printing as show
from jobtape.cli.errors import FAILED, OK, WrongUse
from jobtape.cli.escaping import lines, one_line
from jobtape.cli.rest.api import connect, job_path
from jobtape.client.client import json_of

PAGE: Final = 2000
"""Jobs in one request."""
SHOWN: Final = 10


def redrive(
    url: str, job_ids: Sequence[str], filters: Mapping[str, object], *, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Redrive jobs by their ids, or all jobs that match the filters; FAILED when some could not be redriven."""
    if job_ids and filters:
        raise WrongUse("name the jobs or give a filter, not both")
    with connect(url) as api:
        if job_ids:
            if dry_run:
                raise WrongUse("--dry-run works only with filters: it shows which jobs match")
            return _redrive_each(api, job_ids, as_json)
        if not filters:
            raise WrongUse("say which jobs: by their ids, or by a filter, such as --type or --state failed")
        if not (dry_run or yes):
            _confirm(api, filters)
        total = _redrive_pages(api, filters, dry_run)
    if as_json:
        show.print_json(total)
    else:
        _print_result(total)
    return OK if total["refused"] == total["unknown"] == 0 else FAILED


def _redrive_each(api: SyncClient, job_ids: Sequence[str], as_json: bool) -> int:
    jobs = [api.request("POST", f"{job_path(job_id)}/redrive").content for job_id in job_ids]
    if as_json:
        show.print_json({"items": jobs})
    else:
        for job in jobs:
            print(one_line(f"{job['id']} run {job['run']}"))
    return OK


def _confirm(api: SyncClient, filters: Mapping[str, Any]) -> None:
    if not sys.stdin.isatty():
        raise WrongUse("stdin is not a terminal, so nobody can confirm: check with --dry-run, then give --yes")
    found = _redrive_pages(api, filters, dry_run=True)
    _print_result(found)
    if found["matched"] == 0 or input("Run them again? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SystemExit(OK)


def _redrive_pages(api: SyncClient, filters: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    """Redrive all pages, from the newest job to the oldest, and return the totals."""
    total: dict[str, Any] = {"dry_run": dry_run, **dict.fromkeys(("matched", "accepted", "refused", "unknown"), 0)}
    ids: list[str] = []
    cursor: str | None = None
    while True:
        position = {} if cursor is None else {"cursor": cursor}
        body = json_of({**filters, **position, "dry_run": dry_run, "limit": PAGE})
        page, _ = api.request("POST", "/redrives", content=body, headers={"Content-Type": "application/json"})
        for name in ("matched", "accepted", "refused", "unknown"):
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


def dead_list(url: str, limit: int, *, as_json: bool) -> int:
    """Print the newest messages that are not jobs."""
    with connect(url) as api:
        page = api.request("GET", "/dead", params={"limit": limit}).content
    if as_json:
        show.print_json(page)
        return OK
    show.print_dead(page)
    if not page["items"]:
        print("none; jobs that failed are in `jobtape list --state failed`", file=sys.stderr)
    return OK


def dead_show(url: str, number: int, *, as_json: bool) -> int:
    """Print one message that is not a job: the body on stdout, the rest on stderr."""
    with connect(url) as api:
        message = api.request("GET", f"/dead/{number}").content
    if as_json:
        show.print_json(message)
        return OK
    print(one_line(f"kept since {message['at']}, {message['size']} bytes: {message['reason']}"), file=sys.stderr)
    if message["text"] is not None:
        print(lines(message["text"]))
        return OK
    body = base64.b64decode(message["base64"])
    if sys.stdout.isatty():  # binary data is escaped for a terminal and written unchanged to a file
        print(lines(body.decode("utf-8", "backslashreplace")))
        return OK
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    return OK
