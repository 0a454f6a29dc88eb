"""An event as subscribers get it, whichever way it comes: a CloudEvent the fold accepted, with its cursor."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from jobtape.schemas import events, plainjson
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import Failed, JobEvent, Retrying, Succeeded
from jobtape.schemas.job import ErrorInfo
from jobtape.schemas.upcast import newest

CURSOR: str = "cursor"
"""The attribute that is added to the CloudEvent."""
_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class DeliveredEvent:
    """``event`` stands at ``cursor`` on the tape; a GET of its job shows at least that."""

    event: JobEvent
    cursor: int

    @property
    def id(self) -> str:
        """The event's id: the same when it is delivered again."""
        return self.event.id

    @property
    def name(self) -> str:
        """What happened: ``succeeded``, ``failed``, ``started``, …"""
        return self.event.name

    @property
    def time(self) -> datetime:
        """When it happened, by the clock of who saw it; the order is the cursor's."""
        return self.event.time

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.event.subject

    @property
    def job_type(self) -> str:
        """The job's type."""
        return self.event.data.job_type

    @property
    def correlation_id(self) -> str | None:
        """The job's correlation id."""
        return self.event.correlationid

    @property
    def result(self) -> Any:
        """What the handler returned, of a ``succeeded``; otherwise None."""
        return self.event.data.result if isinstance(self.event, Succeeded) else None

    @property
    def error(self) -> ErrorInfo | None:
        """Why, of a ``failed`` or ``retrying``; otherwise None."""
        return self.event.data.error if isinstance(self.event, Failed | Retrying) else None


def encode_delivered(event: str, cursor: int, more: Mapping[str, str] = _NOTHING) -> bytes:
    """The JSON that subscribers get: ``event`` (a CloudEvent as it was read) in the newest version, with its cursor and
    ``more``.
    """
    return plainjson.dumps({**newest(plainjson.loads(event.encode())), CURSOR: cursor, **more})


def decode_delivered(body: bytes) -> DeliveredEvent:
    """Decode what ``encode_delivered`` made. Raises UnreadableEvent with the reason."""
    try:
        raw = plainjson.loads(body)
    except plainjson.NotJson as error:
        raise UnreadableEvent(f"not JSON: {error}") from None
    match raw:
        case {"cursor": int(cursor)} if cursor > 0:
            return DeliveredEvent(events.parse({name: value for name, value in raw.items() if name != CURSOR}), cursor)
    raise UnreadableEvent("not an event with a cursor")
