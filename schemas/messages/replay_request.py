"""The request for a replay: which events to publish, and to which queue."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.filters.selection import EventFilter
from jobtape.schemas.job import Utc

REPLAY: Final = "jobtape.replay"
"""The job type."""
MIN_RATE: Final = 0.001
MAX_RATE: Final = 100_000.0
Cursor = Annotated[int, Field(ge=0, le=MAX_CURSOR)]


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


class ReplayRequest(EventFilter, TapeRange):
    """Send past events that the fold accepted to a queue. An absent filter restricts nothing."""

    queue: str = Field(min_length=1, max_length=255)
    """The name of an existing queue on the broker, but no queue of Jobtape's own."""
    rate: float | None = Field(None, ge=MIN_RATE, le=MAX_RATE)
    """Events per second at most."""


def reason_to_refuse(queue: str, namespace: str) -> str | None:
    """Return why events must not be replayed to this queue; None if they may. Workers would take them for work."""
    own, subscriptions = f"{namespace}.", f"{namespace}.sub."
    if queue.startswith(own) and not queue.startswith(subscriptions):
        return (
            f"{queue} is one of Jobtape's own queues: name one of yours, or that of an existing subscription "
            f"({subscriptions}<name>)"
        )
    return None
