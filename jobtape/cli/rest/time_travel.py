"""``jobtape --as-of WHEN list`` and ``status``: show past states from the history."""

import sys
from typing import Any

from jobtape.cli import printing as show
from jobtape.cli.escaping import one_line
from jobtape.cli.rest.api import Api
from jobtape.cli.rest.jobs import OK
from jobtape.cli.times import point_of
from jobtape.client.encoding import Query


def status(url: str, job_id: str, when: str, *, as_json: bool) -> int:
    """Print a job as it was at ``when``. Returns the exit code; raises JobtapeError."""
    with Api(url) as api:
        job, cursor = api.job_then(job_id, point_of("--as-of", when))
    _print_cursor(cursor)
    show.print_json(job) if as_json else show.print_job(job)
    return OK


def list_jobs(url: str, query: Query, when: str, limit: int, *, as_json: bool) -> int:
    """Print up to ``limit`` jobs as they were at ``when``; ``query`` contains the limit too.

    Returns the exit code; raises JobtapeError.
    """
    with Api(url) as api:
        page, cursor = api.jobs_then(query, point_of("--as-of", when))
        items: list[Any] = page["items"]
        # The API selects jobs first and reads their histories afterwards, so a page can be short.
        while page["next"] is not None and len(items) < limit:
            rest = [(name, value) for name, value in query if name != "limit"]
            page, _ = api.jobs_then([*rest, ("limit", str(limit - len(items))), ("cursor", page["next"])], cursor)
            items += page["items"]
    _print_cursor(cursor)
    found = {"items": items, "next": page["next"]}
    show.print_json(found) if as_json else show.print_jobs(found)
    return OK


def _print_cursor(cursor: str) -> None:
    print(one_line(f"as of cursor {cursor}"), file=sys.stderr)
