"""What may stand behind the ``?`` of a stream, and where it begins."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from jobtape.producer.http.problems import Problem
from jobtape.producer.http.query_parameters import MAX_LIMIT, Label, is_last_event_id
from jobtape.producer.live.follower import After, StartPosition
from jobtape.schemas import cursor as position
from jobtape.schemas import ids
from jobtape.schemas.events import EVENT_NAMES
from jobtape.schemas.selection import Selection

LAST_EVENT_ID: Final = "Last-Event-ID"
LAST_EVENT_ID_PARAMETER: Final = "lastEventId"


def cursor_of(value: Any) -> Any:
    """A cursor that was written as a text; anything else as it is."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        return int(value)
    return value


def _after(value: Any) -> Any:
    found = cursor_of(value)
    if found == StartPosition.FIRST.value or (type(found) is int and 0 <= found <= position.MAX_CURSOR):
        return found
    raise ValueError("neither a cursor (a whole number, as an event has it) nor `first`")


def _last(values: Sequence[str]) -> str:
    return next((text for value in reversed(values) if (text := value.strip())), "")


def _event_name(text: str) -> str:
    if (fault := Selection(events=frozenset({text})).fault()) is not None:
        raise ValueError(fault)
    return text


def _type_pattern(text: str) -> str:
    if (fault := Selection(types=frozenset({text})).fault()) is not None:
        raise ValueError(fault)
    return text


def _job_id(text: str) -> str:
    if (job_id := ids.parse_job_id(text)) is None:
        raise ValueError("a job id is a UUID, as POST /jobs gives it")
    return job_id


EventName = Annotated[str, AfterValidator(_event_name)]
TypePattern = Annotated[str, AfterValidator(_type_pattern)]
JobIdText = Annotated[str, AfterValidator(_job_id)]
AfterText = Annotated[int | Literal["first"], BeforeValidator(_after)]
AFTER: Final = "Events behind this cursor, `first` for all there are."


class ResumeQuery(BaseModel):
    """Where a stream goes on for a client that resumes; see ``begin_at``."""

    model_config = ConfigDict(extra="forbid")

    last_event_ids: Annotated[list[str], WithJsonSchema({"type": "integer", "minimum": 0})] = Field(
        default_factory=list,
        alias=LAST_EVENT_ID_PARAMETER,
        description=f"As the header `{LAST_EVENT_ID}`, for clients that cannot send it; the header goes before it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _in_one_spelling(cls, given: dict[str, Any]) -> dict[str, Any]:
        values = {name: value for name, value in given.items() if not is_last_event_id(name)}
        sent: list[str] = []
        for name, value in given.items():
            if is_last_event_id(name):
                sent += value if isinstance(value, list) else [value]
        return values | {LAST_EVENT_ID_PARAMETER: sent}

    @property
    def last_event_id(self) -> str:
        """The last of them that is not empty: polyfills add theirs behind that of the time before."""
        return _last(self.last_event_ids)


class StreamQuery(ResumeQuery):
    """The filters of ``GET /events``. Those that repeat: any of the values; labels: all of them."""

    event: list[EventName] = Field(
        default_factory=list, max_length=len(EVENT_NAMES), examples=[["succeeded"]], description="What happened."
    )
    type: list[TypePattern] = Field(
        default_factory=list, max_length=50, description="Job types; `mail.*` is all that begin with `mail.`."
    )
    label: list[Label] = Field(default_factory=list, max_length=8, description="`name:value`")
    job: JobIdText | None = Field(None, description="The job's id.")
    correlation_id: str | None = Field(None, min_length=1, max_length=255)
    after: AfterText | None = Field(None, description=f"{AFTER} From now on, when absent.")

    def selection(self) -> Selection:
        """The filter."""
        return Selection(
            events=frozenset(self.event),
            types=frozenset(self.type),
            job=self.job,
            labels={name: value for name, _, value in (label.partition(":") for label in self.label)},
            correlation_id=self.correlation_id,
        )


class JobEventsQuery(ResumeQuery):
    """What may be asked of ``GET /jobs/{id}/events``: ``limit`` of a page only; ``event``, ``until`` and
    ``lastEventId`` of a stream only.
    """

    after: AfterText = Field("first", description=AFTER)
    limit: int | None = Field(None, ge=1, le=MAX_LIMIT, description="Events in a page, 100 when absent; no stream's.")
    event: list[EventName] = Field(
        default_factory=list, max_length=len(EVENT_NAMES), description="Only these; a stream's."
    )
    until: Literal["final"] | None = Field(None, description="End when the job has ended; a stream's.")

    @property
    def after_cursor(self) -> int:
        """For a page."""
        return self.after if isinstance(self.after, int) else 0

    def check(self, *, stream: bool) -> None:
        """Raises Problem where something was asked that the answer has no use for."""
        unfit = ["limit"] if stream and self.limit is not None else []
        if not stream:
            asked = {"event": self.event, "until": self.until, LAST_EVENT_ID_PARAMETER: self.last_event_id}
            unfit = [name for name, value in asked.items() if value]
        if unfit:
            whose = "a page: it is not for text/event-stream" if stream else "a stream: ask for text/event-stream"
            raise Problem("invalid-query", f"{unfit[0]} is for {whose}", errors=[(unfit[0], f"for {whose}")])


def begin_at(request: Request, query: StreamQuery | JobEventsQuery) -> After:
    """Where a stream begins: behind what the header ``Last-Event-ID`` says, otherwise the query's ``lastEventId``,
    otherwise ``after``. A client that has received no event yet sends the first two empty, as if they were not there.
    Raises Problem for an id that is none.
    """
    header = _last(request.headers.getlist(LAST_EVENT_ID))
    name, text = (LAST_EVENT_ID, header) if header else (LAST_EVENT_ID_PARAMETER, query.last_event_id)
    if text:
        cursor = cursor_of(text)
        if not isinstance(cursor, int) or cursor > position.MAX_CURSOR:
            raise Problem(
                "invalid-last-event-id",
                f"{name} is no cursor: send the id of the last event that was received, or leave it out",
            )
        return cursor
    after = query.after
    if isinstance(after, int):
        return after
    return StartPosition.NOW if after is None else StartPosition.FIRST
