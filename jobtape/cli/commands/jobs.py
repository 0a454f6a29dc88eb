"""``jobtape submit``, ``status``, ``signal``, ``release``, ``list``, ``events`` and ``watch``: use the REST API.

Results go to stdout and everything else to stderr, so that scripts can read stdout. Each command returns its exit code.
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote
from uuid import uuid4

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import ask, connect, job_path, submit_to
from jobtape.cli.errors import FAILED, INTERRUPTED, OK, WrongUse
from jobtape.cli.escaping import one_line
from jobtape.cli.options import (
    DEFAULT_URL,
    AsOf,
    ErrorText,
    Failures,
    JobId,
    Json,
    Labels,
    OfFlow,
    OfNode,
    OnlyQueues,
    OnlyTypes,
    PayloadValues,
    Reasons,
    ResultValues,
    RunAt,
    Several,
    SubmittedSince,
    SubmittedUntil,
    Url,
)
from jobtape.cli.output_streams import discard_output
from jobtape.cli.values import given, labels_of, payload_of, position_of, values_of
from jobtape.schemas.errors import HistoryGone
from jobtape.schemas.events import EVENT_NAMES, encode
from jobtape.schemas.job import JOB_TYPE_PATTERN
from jobtape.schemas.messages.delivered_event import encode_delivered
from jobtape.schemas.submission import Options, submission_body

if TYPE_CHECKING:
    from jobtape import SyncClient
    from jobtape.client.filters import EventFilters

ANY: Final = "*"


def submit(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload; @FILE reads a file, - reads stdin.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end and print its result.")] = False,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="The queue, instead of the job type's.")] = None,
    lane: Annotated[
        str | None, typer.Option(metavar="LANE", help="high, normal or low, if the queue has lanes.")
    ] = None,
    label: Labels = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long the job may run, instead of the job type's timeout."),
    ] = None,
    delay: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Run it that many seconds from now, at the earliest.")
    ] = None,
    run_at: RunAt = None,
    max_attempts: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="How many attempts it has, instead of the job type's number.")
    ] = None,
    ordering_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Jobs with the same key run one after the other.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(metavar="ID", help="An id of yours for everything that belongs together.")
    ] = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON",
            help='A job that runs after it, {"type": ..., "payload": ...}, where {"$previous": ""} stands for the '
            "result of the job before; several times for a chain. @FILE reads a file.",
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Repeating the submission under the same key makes only one job."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Submit a job, or a chain of jobs, and print its id."""
    # The API checks these, and says which lanes there are.
    more = given(lane=lane, delay=delay, run_at=run_at, max_attempts=max_attempts, correlation_id=correlation_id)
    options = Options(queue=queue, labels=labels_of(label), timeout=timeout, ordering_key=ordering_key)
    submission = submission_body(job_type, payload_of(payload), options) | more
    if then:
        submission["then"] = [payload_of(each, "--then") for each in then]
    return submit_and_print(url, submission, wait=wait, idempotency_key=idempotency_key, as_json=as_json)


def submit_and_print(
    url: str, submission: Mapping[str, Any], *, wait: bool, idempotency_key: str | None = None, as_json: bool
) -> int:
    """Submit a job, and with ``wait`` follow it until it ends. Returns the exit code."""
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
        show.print_json(job["result"])
    else:
        show.print_failure(job)
    return OK if job["state"] == "succeeded" else FAILED


def status(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> int:
    """Show the state of a job."""
    if watch and as_of is not None:
        raise WrongUse("--watch shows the present: leave out --as-of")
    with connect(url) as api:
        job, headers = api.request("GET", job_path(job_id), params={} if as_of is None else {"as_of": as_of})
        if watch:
            job = _followed(api, job)
    if as_of is not None:
        _print_cursor(headers)
    show.print_json(job) if as_json else show.print_job(job)
    return FAILED if watch and job["state"] != "succeeded" else OK


def signal(
    job_id: JobId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that the job waits for.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload; @FILE reads a file, - stdin.")] = "{}",
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Repeating the signal under the same key sends only one.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send a signal to a job that waits for it, or will."""
    from jobtape.client.http.bodies import json_of, submission_headers  # noqa: PLC0415

    with connect(url) as api:
        path = f"{job_path(job_id)}/signals/{quote(name, safe='')}"
        headers = submission_headers(idempotency_key or uuid4().hex)
        job, _ = api.request("POST", path, content=json_of({"payload": payload_of(payload)}), headers=headers)
    show.print_json(job) if as_json else print(one_line("sent"))


def release(job_id: JobId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Let a failed job give up its ordering key, so that the next job with the key runs."""
    job = ask(url, "POST", f"{job_path(job_id)}/release")
    show.print_json(job) if as_json else print(one_line("released"))


def list_(
    job_type: OnlyTypes = None,
    state: Annotated[Several, typer.Option(metavar="STATE", help="Only jobs in this state.")] = None,
    queue: OnlyQueues = None,
    label: Labels = None,
    reason: Reasons = None,
    failure: Failures = None,
    error: ErrorText = None,
    payload: PayloadValues = None,
    result: ResultValues = None,
    flow: OfFlow = None,
    node: OfNode = None,
    since: SubmittedSince = None,
    until: SubmittedUntil = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", help="The largest number of jobs.")] = 20,
    as_of: AsOf = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first. Several values of one filter match any of them; a job must have all given labels."""
    query = given(
        type=job_type,
        state=state,
        queue=queue,
        label=label,
        reason=reason,
        failure=failure,
        error=error,
        flow=flow,
        node=node,
        since=since,
        until=until,
        as_of=as_of,
    )
    query |= {f"payload.{path}": value for path, value in values_of("--payload", payload).items()}
    query |= {f"result.{path}" if path else "result": value for path, value in values_of("--result", result).items()}
    items: list[Any] = []
    # The API examines a limited number of jobs for a page of the past or of a search, so such a page can be short.
    with connect(url) as api:
        while True:
            page, headers = api.request("GET", "/jobs", params=query | {"limit": limit - len(items)})
            if as_of is not None and "cursor" not in query:
                _print_cursor(headers)
                query["as_of"] = headers["jobtape-as-of"]
            items += page["items"]
            if page["next"] is None or len(items) >= limit:
                break
            query["cursor"] = page["next"]
    found = {"items": items, "next": page["next"]}
    show.print_json(found) if as_json else show.print_jobs(found)


def events(job_id: JobId, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Show the events of a job in the tape's order."""
    items: list[dict[str, Any]] = []
    after: int | None = 0
    with connect(url) as api:
        while after is not None:
            page, _ = api.request("GET", f"{job_path(job_id)}/events", params={"after": after, "limit": 1000})
            items += page["items"]
            after = page["next"]
    show.print_json({"items": items}) if as_json else show.print_events(items)


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
) -> int:
    """Show events as they happen, until Ctrl-C."""
    filters = filters_of(pattern, label or ())
    position: Any = position_of("--since", since)
    with connect(url, at_once=False) as api:
        if isinstance(position, str) and position != "first":  # the API converts a time into a cursor
            headers = api.request("GET", "/jobs", params={"limit": 1, "as_of": position}).headers
            position = int(headers["jobtape-as-of"])
        while True:
            try:
                for received in api.events(since=position, **filters):
                    event = json.loads(encode_delivered(encode(received.event).decode(), received.cursor))
                    show.print_json_line(event) if as_json else show.print_delivered(event)
            except HistoryGone as gone:
                kept = f"kept are the events after {gone.horizon}, up to {gone.head}"
                note = (
                    f"jobtape: the events after this cursor are no longer kept ({kept}); continuing after {gone.cursor}"
                )
                print(note, file=sys.stderr, flush=True)
                position = gone.cursor
            except KeyboardInterrupt:
                return INTERRUPTED
            except BrokenPipeError:
                discard_output()
                return OK


def filters_of(pattern: str, labels: Iterable[str]) -> "EventFilters":
    """Return the filters of the pattern ``<event>.<job type>`` and of labels. Raises WrongUse.

    Both parts can be ``*``; the job type can end in ``.*`` or be left out.
    """
    event, _, job_type = pattern.partition(".")
    if event not in (ANY, *EVENT_NAMES):
        raise WrongUse(
            f"{pattern}: a pattern is <event>.<job type>, such as failed.billing.* or *.mail.send; "
            f"{event!r} is not an event: {', '.join(EVENT_NAMES)}, or * for all"
        )
    if job_type not in ("", ANY) and not re.fullmatch(JOB_TYPE_PATTERN, job_type.removesuffix(".*")):
        raise WrongUse(f"{pattern}: {job_type!r} is neither a job type nor a prefix such as billing.*")
    filters: EventFilters = {"labels": labels_of(labels)}
    if event != ANY:
        filters["events"] = event
    if job_type not in ("", ANY):
        filters["types"] = job_type
    return filters


def _print_cursor(headers: Mapping[str, str]) -> None:
    print(one_line(f"as of cursor {headers['jobtape-as-of']}"), file=sys.stderr)


def _followed(api: "SyncClient", job: dict[str, Any]) -> dict[str, Any]:
    """Follow a job until it ends, and return it. Ctrl-C ends this process, not the job."""
    from jobtape.cli.follow import follow_job  # noqa: PLC0415

    try:
        return follow_job(api, job)
    except KeyboardInterrupt:
        where = "" if api.url in (DEFAULT_URL, os.environ.get("JOBTAPE_URL")) else f" --url {shlex.quote(api.url)}"
        how = f"jobtape status {job['id']} --watch{where}"
        print(one_line(f"jobtape: the job continues; follow it with: {how}"), file=sys.stderr)
        sys.exit(INTERRUPTED)
