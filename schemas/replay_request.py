"""The request for a replay: which events to publish, and to which queue."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from jobtape.schemas import ids
from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.events import EVENT_NAMES
from jobtape.schemas.job import Utc
from jobtape.schemas.selection import Selection

REPLAY: Final = "jobtape.replay"
"""The job type."""
MIN_RATE: Final = 0.001
MAX_RATE: Final = 100_000.0
Cursor = Annotated[int, Field(ge=0, le=MAX_CURSOR)]
EventName = Literal[
    "submitted",
    "started",
    "progressed",
    "retrying",
    "succeeded",
    "failed",
    "cancelled",
    "redriven",
    "placed",
    "deferred",
]
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,119}(\.\*)?$")]


class TapeRange(BaseModel):
    """A part of the tape, given by cursors or times."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    since: Literal["first"] | Cursor | Utc = "first"
    """Events at this time (RFC 3339) or later, or after this cursor."""
    until: Cursor | Utc | None = None
    """Events before this time, or up to and including this cursor; default: up to now."""

    @model_validator(mode="after")
    def _in_order(self) -> "TapeRange":
        since, until = self.since, self.until
        both_times = isinstance(since, datetime) and isinstance(until, datetime) and since > until
        if both_times or (isinstance(since, int) and isinstance(until, int) and since > until):
            raise ValueError(f"since ({since}) is after until ({until}): swap them")
        return self

    def cursors(self, before: Callable[[datetime], int], head: int) -> tuple[int, int]:
        """Return the range as (after, up to and including). ``before`` finds the cursor of a time, ``head`` is the
        newest.
        """
        since = 0 if self.since == "first" else self.since
        until = head if self.until is None else self.until
        return (
            before(since) if isinstance(since, datetime) else since,
            min(head, before(until) if isinstance(until, datetime) else until),
        )


class ReplayRequest(TapeRange):
    """Send past events that the fold accepted to a queue. An absent filter restricts nothing."""

    queue: str = Field(min_length=1, max_length=255)
    """The name of an existing queue on the broker, but no queue of Jobtape's own."""
    events: list[EventName] = Field(default_factory=list, max_length=len(EVENT_NAMES))
    types: list[Pattern] = Field(default_factory=list, max_length=50)
    """Job types; `mail.*` means all that begin with `mail.`."""
    job: Annotated[str, StringConstraints(to_lower=True, pattern=ids.UUID_PATTERN)] | None = None
    labels: dict[str, str] = Field(default_factory=dict, max_length=8)
    correlation_id: str | None = None
    rate: float | None = Field(None, ge=MIN_RATE, le=MAX_RATE)
    """Events per second at most."""

    def selection(self) -> Selection:
        """Return the filter, without the range."""
        return Selection(
            events=frozenset(self.events),
            types=frozenset(self.types),
            job=self.job,
            labels=self.labels,
            correlation_id=self.correlation_id,
        )


def reason_to_refuse(queue: str, namespace: str) -> str | None:
    """Return why events must not be replayed to this queue; None if they may. Workers would take them for work."""
    own, subscriptions = f"{namespace}.", f"{namespace}.sub."
    if queue.startswith(own) and not queue.startswith(subscriptions):
        return (
            f"{queue} is one of Jobtape's own queues: name one of yours, or that of an existing subscription "
            f"({subscriptions}<name>)"
        )
    return None
