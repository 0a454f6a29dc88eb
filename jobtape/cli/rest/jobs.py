"""``jobtape submit``, ``status``, ``cancel``, ``list`` and ``events``: use the REST API of a running Jobtape.

Results go to stdout and everything else to stderr, so that scripts can read stdout. Each function returns the exit code
and raises JobtapeError.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from jobtape import SyncClient
from jobtape.cli import printing as show
from jobtape.cli.errors import FAILED, INTERRUPTED, OK
from jobtape.cli.escaping import one_line
from jobtape.cli.options import DEFAULT_URL
from jobtape.cli.rest.api import connect, job_path
from jobtape.cli.rest.api import submit as submit_to
from jobtape.cli.rest.follow import follow_job
from jobtape.cli.values import point_of
from jobtape.client.filters import query_of


def submit(
    url: str, submission: Mapping[str, Any], *, wait: bool, idempotency_key: str | None = None, as_json: bool
) -> int:
    """Submit a job, and with ``wait`` follow it until it ends."""
    with connect(url) as api:
        job = submit_to(api, submission, idempotency_key)
        if not wait:
            show.print_json(job) if as_json else print(one_line(job["id"]))
            return OK
        if not as_json:
            print(one_line(f"job {job['id']}"), file=sys.stderr)
        job = _followed(api, job)
    if as_json:
        show.print_json(job)
    elif job["state"] == "succeeded":
        show.print_result(job)
    else:
        show.print_failure(job)
    return OK if job["state"] == "succeeded" else FAILED


def status(url: str, job_id: str, *, as_of: str | None, follow: bool, as_json: bool) -> int:
    """Print the current state of a job, or its state at ``as_of``; with ``follow`` its state after it has ended."""
    params = {} if as_of is None else {"as_of": point_of("--as-of", as_of)}
    with connect(url) as api:
        job, headers = api.request("GET", job_path(job_id), params=params)
        if follow:
            job = _followed(api, job)
    if as_of is not None:
        _print_cursor(headers)
    show.print_json(job) if as_json else show.print_job(job)
    return FAILED if follow and job["state"] != "succeeded" else OK


def cancel(url: str, job_id: str, *, as_json: bool) -> int:
    """Request that a job is cancelled. Raises Conflict when the job has ended."""
    with connect(url) as api:
        job = api.request("POST", f"{job_path(job_id)}/cancel").content
    if as_json:
        show.print_json(job)
    elif job["state"] == "cancelled":
        print("cancelled")
    else:
        print(one_line(f"requested; the job was {job['state']}"))
    return OK


def list_jobs(url: str, filters: Mapping[str, Any], limit: int, *, as_of: str | None, as_json: bool) -> int:
    """Print up to ``limit`` jobs, newest first: as they are, or as they were at ``as_of``."""
    query = query_of(filters)
    with connect(url) as api:
        if as_of is None:
            page = api.request("GET", "/jobs", params=[*query, ("limit", str(limit))]).content
        else:
            page = _past_jobs(api, query, limit, point_of("--as-of", as_of))
    show.print_json(page) if as_json else show.print_jobs(page)
    return OK


def events(url: str, job_id: str, *, as_json: bool) -> int:
    """Print all events of a job in the tape's order."""
    items: list[dict[str, Any]] = []
    after: int | None = 0
    with connect(url) as api:
        while after is not None:
            page, _ = api.request("GET", f"{job_path(job_id)}/events", params={"after": after, "limit": 1000})
            items += page["items"]
            after = page["next"]
    show.print_json({"items": items}) if as_json else show.print_events(items)
    return OK


def _past_jobs(api: SyncClient, query: list[tuple[str, str]], limit: int, point: str) -> dict[str, Any]:
    items: list[Any] = []
    position: list[tuple[str, str]] = []
    # The API selects jobs first and reads their histories afterwards, so a page can be short.
    while True:
        remaining = ("limit", str(limit - len(items)))
        page, headers = api.request("GET", "/jobs", params=[*query, remaining, ("as_of", point), *position])
        if not position:
            _print_cursor(headers)
            point = headers["jobtape-as-of"]
        items += page["items"]
        if page["next"] is None or len(items) >= limit:
            return {"items": items, "next": page["next"]}
        position = [("cursor", page["next"])]


def _print_cursor(headers: Mapping[str, str]) -> None:
    print(one_line(f"as of cursor {headers['jobtape-as-of']}"), file=sys.stderr)


def _followed(api: SyncClient, job: dict[str, Any]) -> dict[str, Any]:
    """Follow a job until it ends, and return it. Ctrl-C ends this process, not the job."""
    try:
        return follow_job(api, job)
    except KeyboardInterrupt:
        where = "" if api.url in (DEFAULT_URL, os.environ.get("JOBTAPE_URL")) else f" --url {shlex.quote(api.url)}"
        how = f"jobtape status {job['id']} --watch{where}"
        print(one_line(f"jobtape: the job continues; follow it with: {how}"), file=sys.stderr)
        sys.exit(INTERRUPTED)
