"""What may stand behind the ``?``; anything else is refused."""

import re
from collections import Counter
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from jobtape.producer.http.problems import Problem
from jobtape.schemas import cursor as position
from jobtape.schemas import ids, plainjson
from jobtape.schemas.events import Reason
from jobtape.schemas.job import JobState, JobTypeName, QueueName, Utc
from jobtape.view.store import JobQuery

MAX_LIMIT: Final = 1000
_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


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


def _job_id(text: str) -> str:
    if (job_id := ids.parse_job_id(text)) is None:
        raise ValueError("not a cursor: take it from `next` of the page before")
    return job_id


Time = Annotated[Utc, BeforeValidator(_rfc_3339)]
Label = Annotated[str, AfterValidator(_label)]
_TIME: Final[TypeAdapter[datetime]] = TypeAdapter(Time)


def point_of(as_of: str) -> int | datetime:
    """The cursor or the time that ``as_of`` says. Raises ValueError."""
    if as_of.isascii() and as_of.isdigit():
        if (cursor := int(as_of[:20])) > position.MAX_CURSOR:
            raise ValueError(f"a cursor is at most {position.MAX_CURSOR}")
        return cursor
    try:
        return _TIME.validate_python(as_of)
    except ValidationError as error:
        raise ValueError(f"neither a cursor nor a time: {error.errors()[0]['msg']}") from None


def _as_of(text: str) -> str:
    point_of(text)
    return text


AsOf = Annotated[
    str,
    AfterValidator(_as_of),
    Field(description="Not as it is now but as it was: a cursor, or a time (RFC 3339).", examples=["281474976710700"]),
]


class ListQuery(BaseModel):
    """Which jobs. Of filters that repeat any of the values, of labels all."""

    model_config = ConfigDict(extra="forbid")

    type: list[JobTypeName] = Field(default_factory=list, max_length=50)
    state: list[JobState] = Field(default_factory=list, max_length=10)
    queue: list[QueueName] = Field(default_factory=list, max_length=50)
    label: list[Label] = Field(
        default_factory=list, max_length=8, description="`name:value`", examples=[["customer:42"]]
    )
    reason: list[Reason] = Field(default_factory=list, max_length=20, description="Why its last attempt failed.")
    since: Time | None = Field(None, description="Submitted at this time or later, RFC 3339.")
    until: Time | None = Field(None, description="Submitted before this time, RFC 3339.")
    limit: int = Field(100, ge=1, le=MAX_LIMIT)
    cursor: Annotated[str, AfterValidator(_job_id)] | None = Field(None, description="`next` of the page before.")

    def to_job_query(self, limit: int) -> JobQuery:
        """For the store, with this limit."""
        return JobQuery(
            types=self.type,
            states=self.state,
            queues=self.queue,
            labels=[(name, value) for name, _, value in (label.partition(":") for label in self.label)],
            reasons=self.reason,
            since=self.since,
            until=self.until,
            before=self.cursor,
            limit=limit,
            whole=True,
        )


class JobsQuery(ListQuery):
    """The page of ``GET /jobs``."""

    as_of: AsOf | None = None


class JobQueryString(BaseModel):
    """What may stand behind ``GET /jobs/{id}``."""

    model_config = ConfigDict(extra="forbid")

    as_of: AsOf | None = None


async def no_query(request: Request) -> None:
    """A dependency of routes without query parameters: one that does nothing would mislead whoever sends it."""
    if names := list(request.query_params):
        raise Problem("invalid-query", f"there is no query parameter here called {names[0]!r}; see /openapi.json")


REPEATED: Final = frozenset({"event", "label", "queue", "reason", "state", "type"})
"""Query parameters of which there may be several."""


def is_last_event_id(name: str) -> bool:
    """Whether a query parameter is ``lastEventId``, however it is spelled: clients that cannot send the header
    ``Last-Event-ID`` differ in case, hyphens and underscores.
    """
    return name.replace("-", "").replace("_", "").lower() == "lasteventid"


async def once(request: Request) -> None:
    """A dependency: of what means one value there is one, since the others would be dropped without a word."""
    counted = Counter(name for name, _ in request.query_params.multi_items())
    for name, number in counted.items():
        if number > 1 and name not in REPEATED and not is_last_event_id(name):
            detail = f"it stands there {number} times: send it once"
            raise Problem("invalid-query", f"{name}: {detail}. See /openapi.json", errors=[(name, detail)])
