"""``jobtape submit``, ``status``, ``cancel``, ``list`` and ``events``: use the REST API of a running Jobtape.

Results go to stdout and everything else to stderr, so that scripts can read stdout.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobtape.cli import printing as show
from jobtape.cli.errors import WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.options import DEFAULT_URL
from jobtape.cli.rest.api import Api
from jobtape.cli.rest.follow import watch
from jobtape.client.encoding import Query
from jobtape.schemas.submission import Options, submission_body

OK, FAILED, INTERRUPTED = 0, 1, 130


def submit(
    url: str,
    job_type: str,
    payload: str,
    *,
    wait: bool,
    queue: str | None,
    labels: Sequence[str],
    timeout: float | None,
    idempotency_key: str | None,
    as_json: bool,
) -> int:
    """Submit a job, and with ``wait`` follow it until it ends. Returns the exit code; raises JobtapeError."""
    content = payload_of(payload)
    options = Options(queue=queue, labels=dict(label_of(label) for label in labels), timeout=timeout)
    with Api(url) as api:
        job = api.submit(submission_body(job_type, content, options), idempotency_key)
        if not wait:
            show.print_json(job) if as_json else print(one_line(job["id"]))
            return OK
        return _follow(api, job, as_json)


def run_builtin(url: str, job_type: str, payload: Mapping[str, Any], *, detach: bool, as_json: bool) -> int:
    """Submit a built-in job, and follow it until it ends unless ``detach`` is set.

    Returns the exit code; raises JobtapeError.
    """
    with Api(url) as api:
        job = api.submit({"type": job_type, "payload": payload}, None)
        if detach:
            show.print_json(job) if as_json else print(one_line(job["id"]))
            return OK
        return _follow(api, job, as_json)


def status(url: str, job_id: str, *, follow: bool, as_json: bool) -> int:
    """Print the state of a job, with ``follow`` after it has ended. Returns the exit code; raises JobtapeError."""
    with Api(url) as api:
        job = api.job(job_id)
        if follow:
            job = _watched(api, job)
        show.print_json(job) if as_json else show.print_job(job)
    return FAILED if follow and job["state"] != "succeeded" else OK


def cancel(url: str, job_id: str, *, as_json: bool) -> int:
    """Request that a job is cancelled. Returns the exit code; raises JobtapeError, also when the job has ended."""
    with Api(url) as api:
        job = api.cancel(job_id)
    if as_json:
        show.print_json(job)
    elif job["state"] == "cancelled":
        print("cancelled")
    else:
        print(one_line(f"asked for; it was {job['state']}"))
    return OK


def filters(some: Mapping[str, Sequence[str] | None], one: Mapping[str, str | None], labels: Sequence[str]) -> Query:
    """Return the given options of ``jobtape list`` as query parameters. Raises WrongUse.

    Options in ``some`` can have several values, options in ``one`` have one value.
    """
    given = [(name, value) for name, values in some.items() for value in values or ()]
    given += [(name, value) for name, value in one.items() if value is not None]
    return given + [("label", ":".join(label_of(label))) for label in labels]


def list_jobs(url: str, query: Query, *, as_json: bool) -> int:
    """Print a page of jobs, newest first. Returns the exit code; raises JobtapeError."""
    with Api(url) as api:
        page = api.jobs(query)
    show.print_json(page) if as_json else show.print_jobs(page)
    return OK


def events(url: str, job_id: str, *, as_json: bool) -> int:
    """Print the events of a job in the tape's order. Returns the exit code; raises JobtapeError."""
    with Api(url) as api:
        items = api.events(job_id)
    show.print_json({"items": items}) if as_json else show.print_events(items)
    return OK


def _follow(api: Api, job: dict[str, Any], as_json: bool) -> int:
    if not as_json:
        print(one_line(f"job {job['id']}"), file=sys.stderr)
    job = _watched(api, job)
    if as_json:
        show.print_json(job)
    elif job["state"] == "succeeded":
        show.print_result(job)
    else:
        show.print_failure(job)
    return OK if job["state"] == "succeeded" else FAILED


def _watched(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    """Follow a job until it ends, and return it. Ctrl-C ends this process, not the job."""
    try:
        return watch(api, job)
    except KeyboardInterrupt:
        where = "" if api.url in (DEFAULT_URL, os.environ.get("JOBTAPE_URL")) else f" --url {shlex.quote(api.url)}"
        how = f"jobtape status {job['id']} --watch{where}"
        print(one_line(f"jobtape: the job continues; follow it with: {how}"), file=sys.stderr)
        sys.exit(INTERRUPTED)


def payload_of(text: str) -> dict[str, Any]:
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"cannot read the payload: {error}") from None
    try:
        payload = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise WrongUse(
            f"the payload is not JSON ({error}): write it as '{{\"x\": 1}}', as @file.json, or - for stdin"
        ) from None
    if not isinstance(payload, dict):
        raise WrongUse("the payload is JSON, but not a JSON object: write it as '{\"x\": 1}'")
    return payload


def label_of(text: str) -> tuple[str, str]:
    """Split ``name=value`` into the name and value of a label. Raises WrongUse."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise WrongUse(f"--label {text}: write it as name=value")
    return name, value
