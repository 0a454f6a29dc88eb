"""``jobtape redrive``: redrives jobs by their ids, or all jobs that match filters."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobtape.cli import printing as show
from jobtape.cli.errors import WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.rest.api import Api
from jobtape.cli.rest.jobs import FAILED, OK, label_of

PAGE: Final = 2000
"""Jobs in one request."""
SHOWN: Final = 10


def redrive(
    url: str, job_ids: Sequence[str], query: Mapping[str, object], *, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Redrive jobs. Returns the exit code, 1 when some could not be redriven; raises JobtapeError."""
    if job_ids and query:
        raise WrongUse("name the jobs or give a filter, not both")
    with Api(url) as api:
        if job_ids:
            if dry_run:
                raise WrongUse("--dry-run works only with filters: it shows which jobs match")
            return _one_by_one(api, job_ids, as_json)
        if not query:
            raise WrongUse("say which jobs: by their ids, or by a filter, such as --type or --state failed")
        body = {**query, "label": [":".join(label_of(label)) for label in _texts(query.get("label"))]}
        if not (dry_run or yes):
            _ask(api, body)
        total = _through(api, body, dry_run)
    if as_json:
        show.print_json(total)
    else:
        _print_result(total)
    return OK if total["refused"] == total["unknown"] == 0 else FAILED


def _one_by_one(api: Api, job_ids: Sequence[str], as_json: bool) -> int:
    jobs = [api.redrive(job_id) for job_id in job_ids]
    if as_json:
        show.print_json({"items": jobs})
    else:
        for job in jobs:
            print(one_line(f"{job['id']} run {job['run']}"))
    return OK


def _ask(api: Api, body: Mapping[str, Any]) -> None:
    if not sys.stdin.isatty():
        raise WrongUse("stdin is not a terminal, so nobody can confirm: check with --dry-run, then give --yes")
    found = _through(api, body, dry_run=True)
    _print_result(found)
    if found["matched"] == 0 or input("Run them again? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SystemExit(OK)


def _through(api: Api, body: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    """Redrive all pages, from the newest job to the oldest, and return the totals."""
    total: dict[str, Any] = {"dry_run": dry_run, **dict.fromkeys(("matched", "accepted", "refused", "unknown"), 0)}
    ids: list[str] = []
    cursor: str | None = None
    while True:
        position = {} if cursor is None else {"cursor": cursor}
        page = api.redrives({**body, **position, "dry_run": dry_run, "limit": PAGE})
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
            f"{total['refused']} were not redriven: their orders are not known, or the broker stopped",
            file=sys.stderr,
        )
    if total["unknown"]:
        print(
            f"{total['unknown']} may have been redriven or not: repeat the command, no job is redriven twice",
            file=sys.stderr,
        )


def _texts(value: object) -> list[str]:
    return value if isinstance(value, list) else []
