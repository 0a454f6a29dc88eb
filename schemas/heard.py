"""An event as subscribers are told it, whichever way it comes: a CloudEvent the fold accepted, with its cursor."""

from dataclasses import dataclass

from jobtape.schemas import events, plainjson
from jobtape.schemas.errors import UnreadableEvent
from jobtape.schemas.events import JobEvent

CURSOR: str = "cursor"
"""The attribute that is added to the CloudEvent."""


@dataclass(frozen=True, slots=True)
class Heard:
    """``event`` stands at ``cursor`` on the tape; a GET of its job shows at least that."""

    event: JobEvent
    cursor: int


def tell(event: str, cursor: int) -> bytes:
    """The JSON that subscribers get: ``event`` (a CloudEvent as it was read) with its cursor."""
    return plainjson.dumps({**plainjson.loads(event.encode()), CURSOR: cursor})


def hear(body: bytes) -> Heard:
    """What ``tell`` told. Raises UnreadableEvent with the reason."""
    try:
        raw = plainjson.loads(body)
    except plainjson.NotJson as error:
        raise UnreadableEvent(f"not JSON: {error}") from None
    match raw:
        case {"cursor": int(cursor)} if cursor > 0:
            return Heard(events.parse({name: value for name, value in raw.items() if name != CURSOR}), cursor)
    raise UnreadableEvent("not an event with a cursor")
