"""``jobtape watch``: prints events as they happen, starting at any position on the tape."""

import json
import re
import sys
from collections.abc import Iterable
from typing import Final

from jobtape import SyncClient
from jobtape.cli import printing as show
from jobtape.cli.errors import INTERRUPTED, OK, WrongUse
from jobtape.cli.output_streams import discard_output
from jobtape.cli.rest.api import ONCE_CONNECTED, connect
from jobtape.cli.values import labels_of, position_of
from jobtape.client.filters import EventFilters
from jobtape.client.stream import Since
from jobtape.schemas.delivered_event import encode_delivered
from jobtape.schemas.errors import HistoryGone
from jobtape.schemas.events import EVENT_NAMES, encode
from jobtape.schemas.job import JOB_TYPE_PATTERN

ANY: Final = "*"


def watch_events(url: str, pattern: str, since: str | None, labels: Iterable[str] | None, *, as_json: bool) -> int:
    """Print events until Ctrl-C, or until the output is closed. Returns the exit code; raises JobtapeError."""
    filters = filters_of(pattern)
    filters["labels"] = dict(labels_of(labels))
    start = position_of("--since", since)
    with connect(url, ONCE_CONNECTED) as api:
        position = _cursor(api, start)
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


def filters_of(pattern: str) -> EventFilters:
    """Return the filters of the pattern ``<event>.<job type>``. Raises WrongUse.

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
    filters = EventFilters()
    if event != ANY:
        filters["events"] = event
    if job_type not in ("", ANY):
        filters["types"] = job_type
    return filters


def _cursor(api: SyncClient, start: int | str | None) -> Since:
    """Return ``start`` as a cursor. The API converts a time into one."""
    if start is None or isinstance(start, int):
        return start
    if start == "first":
        return "first"
    return int(api.request("GET", "/jobs", params={"limit": 1, "as_of": start}).headers["jobtape-as-of"])
