"""Query parameters of the routes that read jobs. The models refuse unknown parameters."""

import re
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from jobtape.schemas import ids, plainjson
from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.events import EndReason
from jobtape.schemas.execution.failure_group import FailureId
from jobtape.schemas.filters.job_search import LONGEST_TEXT, JobSearch, Part, value_search, value_searches
from jobtape.schemas.job import JobState, JobTypeName, Utc, WorkQueueName
from jobtape.schemas.queueing.gates import GateKey
from jobtape.view.store import JobQuery

LARGEST_PAGE: Final = 1000
_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_cursor(text: str) -> int | None:
    """Return the cursor that ``text`` contains, or None when it is not a whole number. Raises ValueError when it is too
    large.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    if (cursor := int(text[:20])) > MAX_CURSOR:
        raise ValueError(f"a cursor is at most {MAX_CURSOR}")
    return cursor


def _rfc_3339(value: Any) -> Any:
    if isinstance(value, str) and not _RFC_3339.fullmatch(value):
        raise ValueError("not an RFC 3339 time such as 2030-01-31T12:00:00Z (a + must be sent as %2B)")
    return value


def _label(text: str) -> str:
    name, colon, _ = text.partition(":")
    if not (name and colon):
        raise ValueError("not of the form name:value")
    if (reason := plainjson.fault(text)) is not None:
        raise ValueError(reason.removeprefix("value: "))
    return text


def _search_place(name: str) -> tuple[Part, str]:
    """Return the part of a job and the path in it that a parameter of a search names. Raises ValueError."""
    part, _, path = name.partition(".")
    if part not in ("payload", "result"):
        raise ValueError("there is no such parameter")
    return ("payload" if part == "payload" else "result"), path


def _search_name(name: str) -> str:
    value_search(*_search_place(name), "")
    return name


def _last_id(text: str) -> str:
    if (job_id := ids.parse_job_id(text)) is None:
        raise ValueError("not a cursor: take it from `next` of the page before")
    return job_id


def _job_id(text: str) -> str:
    if (job_id := ids.parse_job_id(text)) is None:
        raise ValueError("a job id is a UUID, as POST /flows returns it")
    return job_id


def _point(text: str) -> int | datetime:
    if (cursor := parse_cursor(text)) is not None:
        return cursor
    try:
        return _TIME.validate_python(text)
    except ValidationError as error:
        raise ValueError(f"neither a cursor nor a time: {error.errors()[0]['msg']}") from None


Time = Annotated[Utc, BeforeValidator(_rfc_3339)]
Label = Annotated[str, AfterValidator(_label)]
_TIME: Final[TypeAdapter[datetime]] = TypeAdapter(Time)
Point = Annotated[
    int | datetime,
    PlainValidator(_point),
    WithJsonSchema({"type": "string"}),
    Field(description="Return the state at this cursor or time (RFC 3339).", examples=["281474976710700"]),
]


class JobsQuery(BaseModel, extra="allow"):
    """The query parameters of ``GET /jobs``. A filter with several values matches any of them; labels must all match.

    Other parameters are those of a search, ``payload.<path>``, ``result.<path>`` and ``result``.
    """

    type: list[JobTypeName] = Field(default_factory=list, max_length=50)
    state: list[JobState] = Field(default_factory=list, max_length=10)
    queue: list[WorkQueueName] = Field(default_factory=list, max_length=50)
    label: list[Label] = Field(
        default_factory=list, max_length=8, description="`name:value`", examples=[["customer:42"]]
    )
    reason: list[EndReason] = Field(
        default_factory=list, max_length=20, description="Why the last attempt failed, or the job is a duplicate."
    )
    failure: list[FailureId] = Field(default_factory=list, max_length=50, description="A group of `GET /failures`.")
    since: Time | None = Field(None, description="Submitted at this time or later, RFC 3339.")
    until: Time | None = Field(None, description="Submitted before this time, RFC 3339.")
    flow: Annotated[str, AfterValidator(_job_id)] | None = Field(None, description="Only the jobs of this flow.")
    node: str | None = Field(None, max_length=64, description="Only the jobs of the node with this name.")
    ordering_key: GateKey | None = Field(None, description="Only the jobs with this ordering key.")
    has_slots: bool = Field(
        False,
        description="Only jobs that have a slot now: of those with an ordering key, the one for which the others wait.",
    )
    error: str = Field("", max_length=LONGEST_TEXT, description="Part of the error's type or message, in any case.")
    limit: int = Field(100, ge=1, le=LARGEST_PAGE)
    cursor: Annotated[str, AfterValidator(_last_id)] | None = Field(None, description="`next` of the page before.")
    as_of: Point | None = None

    __pydantic_extra__: dict[
        Annotated[str, AfterValidator(_search_name)], Annotated[str, Field(max_length=LONGEST_TEXT)]
    ] = Field(init=False)

    @model_validator(mode="after")
    def _slots_of_now(self) -> "JobsQuery":
        if self.has_slots and self.as_of is not None:
            raise ValueError("which jobs had slots is not known of the past: leave out has_slots or as_of")
        return self

    @model_validator(mode="after")
    def _few_searches(self) -> "JobsQuery":
        self.search()
        return self

    def search(self) -> JobSearch:
        """Return what to search for in the jobs."""
        extra = {_search_place(name): value for name, value in (self.model_extra or {}).items()}
        return JobSearch(value_searches(extra), self.error)

    def to_job_query(self, limit: int) -> JobQuery:
        """Return the query for the store, for at most ``limit`` jobs."""
        return JobQuery(
            types=self.type,
            states=self.state,
            queues=self.queue,
            labels=[(name, value) for name, _, value in (label.partition(":") for label in self.label)],
            reasons=self.reason,
            failures=self.failure,
            since=self.since,
            until=self.until,
            before=self.cursor,
            limit=limit,
            whole=True,
            search=self.search(),
            flow=self.flow,
            node=self.node,
            ordering_key=self.ordering_key,
            has_slots=self.has_slots,
        )


class JobParameters(BaseModel, extra="forbid"):
    """The query parameters of ``GET /jobs/{id}``."""

    as_of: Point | None = None
