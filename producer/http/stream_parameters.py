"""Parameters of the routes that stream events: the filter, and where a stream starts."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import Request
from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema, model_validator

from jobtape.producer.http.problems import Problem
from jobtape.producer.http.query_parameters import LARGEST_PAGE, Label, parse_cursor
from jobtape.producer.live.follower import After, StartPosition
from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.events import EVENT_NAMES
from jobtape.schemas.filters.selection import EventName, JobIdText, Selection, TypePattern

LAST_EVENT_ID: Final = "Last-Event-ID"
LAST_EVENT_ID_PARAMETER: Final = "lastEventId"


def is_last_event_id(name: str) -> bool:
    """Return whether the query parameter ``name`` is ``lastEventId`` in some spelling.

    Clients that cannot send the header ``Last-Event-ID`` differ in case, hyphens and underscores.
    """
    return name.replace("-", "").replace("_", "").lower() == "lasteventid"


def _start(value: Any) -> After:
    if value == StartPosition.FIRST.value:
        return StartPosition.FIRST
    cursor = parse_cursor(value) if isinstance(value, str) else value
    if type(cursor) is int and 0 <= cursor <= MAX_CURSOR:
        return cursor
    raise ValueError("neither a cursor (a whole number, as in an event) nor `first`")


def _last(values: Sequence[str]) -> str:
    return next((text for value in reversed(values) if (text := value.strip())), "")


Start = Annotated[
    After,
    PlainValidator(_start),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"const": "first", "type": "string"}]}),
]
"""Where a stream starts: after a cursor, or with the first event."""
AFTER: Final = "Events after this cursor; `first` for all events."


class ResumeQuery(BaseModel, extra="forbid"):
    """The query parameter with which a client resumes a stream when it cannot send the header ``Last-Event-ID``."""

    last_event_ids: Annotated[list[str], WithJsonSchema({"type": "integer", "minimum": 0})] = Field(
        default_factory=list,
        alias=LAST_EVENT_ID_PARAMETER,
        description=f"The same as the header `{LAST_EVENT_ID}`, which has priority, for clients that cannot send it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _join_spellings(cls, given: dict[str, Any]) -> dict[str, Any]:
        values = {name: value for name, value in given.items() if not is_last_event_id(name)}
        sent: list[str] = []
        for name, value in given.items():
            if is_last_event_id(name):
                sent += value if isinstance(value, list) else [value]
        return values | {LAST_EVENT_ID_PARAMETER: sent}

    @property
    def last_event_id(self) -> str:
        """The last value that is not empty: a polyfill appends its value to the one of its previous connection."""
        return _last(self.last_event_ids)


class StreamQuery(ResumeQuery):
    """The query parameters of ``GET /events``. A filter with several values matches any of them; all labels must
    match.
    """

    event: list[EventName] = Field(
        default_factory=list, max_length=len(EVENT_NAMES), examples=[["succeeded"]], description="Names of events."
    )
    type: list[TypePattern] = Field(
        default_factory=list, max_length=50, description="Job types; `mail.*` matches all that begin with `mail.`."
    )
    label: list[Label] = Field(default_factory=list, max_length=8, description="`name:value`")
    job: JobIdText | None = Field(None, description="The job's id.")
    correlation_id: str | None = Field(None, min_length=1, max_length=255)
    after: Start | None = Field(None, description=f"{AFTER} When absent, only new events.")

    def selection(self) -> Selection:
        return Selection(
            events=frozenset(self.event),
            types=frozenset(self.type),
            job=self.job,
            labels={name: value for name, _, value in (label.partition(":") for label in self.label)},
            correlation_id=self.correlation_id,
        )


class JobEventsQuery(ResumeQuery):
    """The query parameters of ``GET /jobs/{id}/events``: ``limit`` only for a page; ``event``, ``until`` and
    ``lastEventId`` only for a stream.
    """

    after: Start = Field(StartPosition.FIRST, description=AFTER)
    limit: int | None = Field(
        None, ge=1, le=LARGEST_PAGE, description="Events in a page, 100 when absent; not for a stream."
    )
    event: list[EventName] = Field(
        default_factory=list, max_length=len(EVENT_NAMES), description="Names of events; only for a stream."
    )
    until: Literal["final"] | None = Field(None, description="End when the job has ended; only for a stream.")

    def check(self, *, stream: bool) -> None:
        """Raise the problem 422 for a parameter that a stream, or a page, does not support."""
        given = {"event": self.event, "until": self.until, LAST_EVENT_ID_PARAMETER: self.last_event_id}
        unfit = {"limit": self.limit} if stream else given
        for name, value in unfit.items():
            if value:
                wanted = "a page: do not accept text/event-stream" if stream else "a stream: accept text/event-stream"
                raise Problem("invalid-query", f"{name} is for {wanted}", errors=[(name, f"for {wanted}")])


def start_of(request: Request, query: StreamQuery | JobEventsQuery) -> After:
    """Return where a stream starts: after the event in the header ``Last-Event-ID``, otherwise after the query's
    ``lastEventId``, otherwise at ``after``. An empty id counts as absent, because a client that has received no event
    sends it empty. Raises the problem 400 when the id is not a cursor.
    """
    header = _last(request.headers.getlist(LAST_EVENT_ID))
    name, text = (LAST_EVENT_ID, header) if header else (LAST_EVENT_ID_PARAMETER, query.last_event_id)
    if not text:
        return StartPosition.NOW if query.after is None else query.after
    try:
        if (cursor := parse_cursor(text)) is not None:
            return cursor
    except ValueError:
        pass
    detail = f"{name} is not a cursor: send the id of the last event that you received, or leave it out"
    raise Problem("invalid-last-event-id", detail)
