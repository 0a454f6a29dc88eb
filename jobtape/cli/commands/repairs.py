"""``jobtape workers``, ``stats``, ``failures``, ``dead``, ``subscriptions`` and ``doctor``: find and repair faults."""

import base64
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jobtape.cli import printing as show
from jobtape.cli.api import ask
from jobtape.cli.escaping import lines, one_line
from jobtape.cli.options import (
    DEFAULT_URL,
    AppDir,
    Jobs,
    Json,
    OnlyQueues,
    OnlyTypes,
    RangeSince,
    RangeUntil,
    Several,
    Url,
)
from jobtape.cli.values import given

if TYPE_CHECKING:
    pass


def workers(as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """List the workers and what they run."""
    found = ask(url, "GET", "/workers")
    show.print_json(found) if as_json else show.print_workers(found)


def stats(
    job_type: OnlyTypes = None,
    queue: OnlyQueues = None,
    since: RangeSince = None,
    until: RangeUntil = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show how many jobs there are now, and events, waits and run times of the last hour or the given range."""
    found = ask(url, "GET", "/stats", params=given(type=job_type, queue=queue, since=since, until=until))
    show.print_json(found) if as_json else show.print_stats(found)


def failures(
    job_type: OnlyTypes = None,
    queue: OnlyQueues = None,
    since: RangeSince = None,
    until: RangeUntil = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", help="The largest number of groups.")] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List failures by cause, the newest first. `jobtape list --failure ID` lists the jobs of one."""
    query = given(type=job_type, queue=queue, since=since, until=until, limit=limit)
    page = ask(url, "GET", "/failures", params=query)
    show.print_json(page) if as_json else show.print_failures(page["items"])


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
    as_json: Json = False,
) -> int:
    """Remove a subscription's position, and its queue with all events that wait on it."""
    from jobtape.cli import subscriptions  # noqa: PLC0415

    return subscriptions.remove(name, as_json=as_json)


def doctor(jobs: Jobs = None, app_dir: AppDir = None, as_json: Json = False) -> int:
    """Check broker, view, workers, outbox and settings, and say what to do. Exit code 1 if anything is wrong."""
    from jobtape.cli.doctor.doctor import run_doctor  # noqa: PLC0415

    return run_doctor(as_json=as_json, jobs=jobs, app_dir=app_dir)
