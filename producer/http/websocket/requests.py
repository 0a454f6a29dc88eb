"""The requests that a client may send over a WebSocket.

A message that is not a request ends the connection with a close code and a reason (``InvalidRequest``). A request with
a wrong value gets an ``error`` message (``MessageRefused``), and the connection stays open.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError
from starlette import status

from jobtape.producer.http.stream_parameters import Start
from jobtape.schemas import plainjson
from jobtape.schemas.filters.selection import EventFilter

MAX_MESSAGE: Final = 64 * 1024
"""Characters."""
ID_LENGTH: Final = 64


SubscriptionId = Annotated[str, Field(min_length=1, max_length=ID_LENGTH, strict=True)]


class InvalidRequest(Exception):
    """A message that ends the connection with the close code ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class MessageRefused(Exception):
    """A request that is refused. ``id`` is the subscription's, or None when the request names none."""

    def __init__(self, id: str | None, detail: str) -> None:  # noqa: A002  # the name of the field in the message
        super().__init__(detail)
        self.id = id
        self.detail = detail


class Subscribe(EventFilter):
    """Start the subscription ``id``: the matching events after the cursor ``after``, all of them (``first``), or only
    new ones.
    """

    type: Literal["subscribe"]
    id: SubscriptionId
    after: Start | None = None


class Unsubscribe(BaseModel, extra="forbid"):
    """End the subscription ``id``."""

    type: Literal["unsubscribe"]
    id: SubscriptionId


REQUESTS: Final[Mapping[str, type[Subscribe | Unsubscribe]]] = {"subscribe": Subscribe, "unsubscribe": Unsubscribe}


def request_of(message: Mapping[str, Any]) -> Subscribe | Unsubscribe:
    """Return the request in an ASGI message. Raises InvalidRequest or MessageRefused."""
    text = message.get("text")
    if text is None:
        raise InvalidRequest(status.WS_1003_UNSUPPORTED_DATA, "messages are JSON in text frames: send no binary frames")
    if len(text) > MAX_MESSAGE:
        raise InvalidRequest(status.WS_1009_MESSAGE_TOO_BIG, f"the message has more than {MAX_MESSAGE} characters")
    try:
        value = plainjson.loads_sent(text.encode())
    except (plainjson.NotJson, UnicodeEncodeError):
        raise InvalidRequest(
            status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, "the message is not JSON: send an object"
        ) from None
    if (fault := plainjson.fault(value)) is not None:
        raise MessageRefused(None, fault)
    kind = value.get("type") if isinstance(value, dict) else None
    model = REQUESTS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise InvalidRequest(status.WS_1008_POLICY_VIOLATION, f"unknown request: send {' or '.join(REQUESTS)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the request"
        name = value.get("id")
        raise MessageRefused(
            name if isinstance(name, str) and len(name) <= ID_LENGTH else None,
            plainjson.storable(f"{field[:100]}: {first['msg'][:300]}"),
        ) from None
