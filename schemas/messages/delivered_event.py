"""An event as subscribers get it from a queue, stream or WebSocket: an accepted CloudEvent with its cursor."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobtape.schemas import events, plainjson
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import Failed, JobEvent, Retrying, Succeeded
from jobtape.schemas.events.upcast import newest
from jobtape.schemas.job import ErrorInfo

CURSOR: str = "cursor"
"""The name of the attribute that is added to the CloudEvent."""


@dataclass(frozen=True, slots=True)
class DeliveredEvent:
    """An event and its cursor on the tape. A GET of its job already contains it."""

    event: JobEvent
    cursor: int

    @property
    def id(self) -> str:
        """The event's id, which is the same in each delivery of it."""
        return self.event.id

    @property
    def name(self) -> str:
        """The event's name, such as ``succeeded``."""
        return self.event.name

    @property
    def time(self) -> datetime:
        """When it happened, by its publisher's clock. Order events by cursor instead."""
        return self.event.time

    @property
    def job_id(self) -> str:
        return self.event.subject

    @property
    def job_type(self) -> str:
        return self.event.data.job_type

    @property
    def correlation_id(self) -> str | None:
        return self.event.correlationid

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context in which it was published, or that of the job's submission; None if there is none."""
        return self.event.traceparent

    @property
    def result(self) -> Any:
        """The handler's result if the event is ``succeeded``; otherwise None."""
        return self.event.data.result if isinstance(self.event, Succeeded) else None

    @property
    def error(self) -> ErrorInfo | None:
        """The error if the event is ``failed`` or ``retrying``; otherwise None."""
        return self.event.data.error if isinstance(self.event, Failed | Retrying) else None


def delivered(event: str, cursor: int, traceparent: str | None = None) -> dict[str, Any]:
    """Return what subscribers get, parsed: ``event`` (a CloudEvent as JSON) in the newest version, with its cursor.

    ``traceparent``: the trace context of the job's submission, which is that of an event without one of its own.
    """
    found = {**newest(plainjson.loads(event.encode())), CURSOR: cursor}
    if traceparent is not None:
        found.setdefault("traceparent", traceparent)
    return found


def encode_delivered(event: str, cursor: int, traceparent: str | None = None) -> bytes:
    """Same as ``delivered``, as JSON."""
    return plainjson.dumps(delivered(event, cursor, traceparent))


def decode_delivered(body: bytes) -> DeliveredEvent:
    """Decode an event of ``encode_delivered``. Raises UnreadableEvent with the reason."""
    try:
        raw = plainjson.loads(body)
    except plainjson.NotJson as error:
        raise UnreadableEvent(f"not JSON: {error}") from None
    match raw:
        case {"cursor": int(cursor)} if cursor > 0:
            return DeliveredEvent(events.parse({name: value for name, value in raw.items() if name != CURSOR}), cursor)
    raise UnreadableEvent("not an event with a cursor")
