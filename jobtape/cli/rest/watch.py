"""``jobtape watch``: prints events as they happen, starting at any position on the tape."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Final

from jobtape.cli import printing as show
from jobtape.cli.errors import WrongUse
from jobtape.cli.output_streams import discard_output
from jobtape.cli.rest.api import ONCE_THERE, Api
from jobtape.cli.rest.jobs import INTERRUPTED, OK, label_of
from jobtape.cli.times import place_of
from jobtape.client.stream import Since
from jobtape.schemas.delivered_event import encode_delivered
from jobtape.schemas.errors import HistoryGone
from jobtape.schemas.events import EVENT_NAMES, encode
from jobtape.schemas.job import JOB_TYPE_PATTERN

ANY: Final = "*"


def watch_events(url: str, pattern: str, since: str | None, labels: Sequence[str], *, as_json: bool) -> int:
    """Print events until Ctrl-C, or until the output is closed. Returns the exit code; raises JobtapeError."""
    query = query_of(pattern) + [("label", ":".join(label_of(label))) for label in labels]
    place = place_of("--since", since)
    with Api(url, ONCE_THERE) as api:
        position = _position(api, place)
        while True:
            try:
                for received in api.live(query, position):
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


def query_of(pattern: str) -> list[tuple[str, str]]:
    """Return the pattern ``<event>.<job type>`` as query parameters. Raises WrongUse.

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
    given = [("event", event), ("type", job_type)]
    return [(name, value) for name, value in given if value not in ("", ANY)]


def _position(api: Api, place: int | str | None) -> Since:
    """Return ``place`` as a cursor. The API converts a time into one."""
    if place is None or isinstance(place, int):
        return place
    if place == "first":
        return "first"
    _, cursor = api.jobs_then([("limit", "1")], place)
    return int(cursor)
