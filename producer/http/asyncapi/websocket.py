"""The WebSocket in the AsyncAPI document: one channel with messages in both directions."""

import inspect
from collections.abc import Iterable
from typing import Any, Final

from jobtape.producer.http.asyncapi.messages import REF, message, object_schema
from jobtape.producer.http.websocket.requests import REQUESTS
from jobtape.schemas.cursor import MAX_CURSOR
from jobtape.schemas.events import EVENT_CLASSES

CHANNEL: Final = "#/channels/socket"
_ID: Final = {"type": "string", "description": "The id of the subscription, chosen by the client."}
_CURSOR: Final = {"type": "integer", "minimum": 0, "maximum": MAX_CURSOR}
_EVENT: Final = {
    "allOf": [{"anyOf": [{"$ref": REF + cls.__name__} for cls in EVENT_CLASSES]}, {"$ref": REF + "Delivered"}]
}
_SENT: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "subscribed": ("The subscription begins after `cursor`.", {"id": _ID, "cursor": _CURSOR}),
    "event": ("An event of the subscription.", {"id": _ID, "cursor": _CURSOR, "event": _EVENT}),
    "reset": (
        "The history after the requested position was deleted, or the position is of another tape. "
        "The subscription continues after `cursor`.",
        {"id": _ID, "horizon": _CURSOR, "head": _CURSOR, "cursor": _CURSOR},
    ),
    "unsubscribed": ("The subscription has ended.", {"id": _ID}),
    "keep-alive": (
        "All events up to `cursor` have been sent. `cursor` is null until all subscriptions have begun.",
        {"cursor": {"anyOf": [_CURSOR, {"type": "null"}]}},
    ),
    "error": (
        "The request was refused. `detail` says why.",
        {"id": {"type": ["string", "null"]}, "detail": {"type": "string"}},
    ),
}


def channel() -> dict[str, Any]:
    """Return the channel."""
    return {
        "address": "/ws",
        "title": "WebSocket",
        "description": (
            "JSON text messages. After a lost connection, subscribe with the last cursor as `after` to get exactly "
            "what was missed. The key goes into `Authorization: Bearer`, or, in browsers, into the subprotocols "
            '`["jobtape", "bearer.<the key in base64url>"]`.'
        ),
        "servers": [{"$ref": "#/servers/socket"}],
        "messages": {name: {"$ref": f"#/components/messages/socket.{name}"} for name in (*REQUESTS, *_SENT)},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def operations() -> dict[str, Any]:
    """Return the operations: what the API receives from clients, and what it sends to them."""
    return {
        "receiveRequests": _operation("receive", "Start or end a subscription.", REQUESTS),
        "sendMessages": _operation("send", "Events, and the outcomes of requests.", _SENT),
    }


def messages() -> dict[str, Any]:
    """Return the messages of the channel."""
    received = {
        name: (inspect.cleandoc(model.__doc__ or ""), model.model_json_schema()) for name, model in REQUESTS.items()
    }
    sent = {
        name: (summary, object_schema({"type": {"const": name}, **properties}))
        for name, (summary, properties) in _SENT.items()
    }
    return {f"socket.{name}": message(name, summary, schema) for name, (summary, schema) in (received | sent).items()}


def _operation(action: str, summary: str, names: Iterable[str]) -> dict[str, Any]:
    references = [{"$ref": f"{CHANNEL}/messages/{name}"} for name in names]
    return {"action": action, "channel": {"$ref": CHANNEL}, "summary": summary, "messages": references}
