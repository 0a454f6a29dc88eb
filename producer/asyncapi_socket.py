"""The WebSocket in the AsyncAPI document: one channel, whose messages go both ways."""

from typing import Any, Final

from jobtape.producer.event_examples import Example
from jobtape.schemas.events import EVENT_CLASSES, EVENT_NAMES
from jobtape.schemas.position import MAX_CURSOR

CHANNEL: Final = "#/channels/socket"
_REF: Final = "#/components/schemas/"
_ID: Final = {"type": "string", "description": "The subscription's, chosen by the client."}
_CURSOR: Final = {"type": "integer", "minimum": 0, "maximum": MAX_CURSOR}
_EVENT: Final = {
    "allOf": [{"anyOf": [{"$ref": _REF + cls.__name__} for cls in EVENT_CLASSES]}, {"$ref": _REF + "Told"}]
}
_NULLABLE: Final = {"type": ["string", "null"]}
_FILTERS: Final[dict[str, Any]] = {
    "events": {"type": "array", "items": {"enum": list(EVENT_NAMES)}},
    "types": {"type": "array", "items": {"type": "string"}, "description": "`mail.*`: all that begin with `mail.`."},
    "job": _NULLABLE,
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "correlation_id": _NULLABLE,
    "after": {"anyOf": [_CURSOR, {"const": "first"}, {"type": "null"}], "description": "From now on, when absent."},
}

_FROM_CLIENT: Final = ("subscribe", "unsubscribe")
_FROM_US: Final = ("subscribed", "event", "reset", "unsubscribed", "keep-alive", "error")


def channel() -> dict[str, Any]:
    """The connection."""
    return {
        "address": "/ws",
        "title": "WebSocket",
        "description": (
            "JSON text messages. A client that was cut subscribes again with `after` its last cursor and gets exactly "
            "what it missed. The key goes into `Authorization: Bearer`, or, in browsers, into the subprotocols "
            '`["jobtape", "bearer.<the key in base64url>"]`.'
        ),
        "servers": [{"$ref": "#/servers/socket"}],
        "messages": {name: {"$ref": f"#/components/messages/{_key(name)}"} for name in (*_FROM_CLIENT, *_FROM_US)},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def operations() -> dict[str, Any]:
    """What clients send, and what they are sent."""
    return {
        "takeSubscriptions": _operation("receive", "Begin or end a subscription.", _FROM_CLIENT),
        "tellSubscribers": _operation("send", "What happens, as it happens.", _FROM_US),
    }


def messages(example: Example) -> dict[str, Any]:
    """The messages of the channel; ``example`` is an event that one of them carries."""
    cursor = example.headers["cursor"]
    told = {"id": "a", "cursor": cursor, "event": example.told}
    asked = {"id": "a", "events": [example.name], "types": ["mail.*"], "after": cursor - 12}
    return {
        _key(name): _message(name, summary, required, more, values)
        for name, summary, required, more, values in (
            ("subscribe", "Begin to be told.", ("id",), {"id": _ID, **_FILTERS}, asked),
            ("unsubscribe", "No longer.", ("id",), {"id": _ID}, {"id": "a"}),
            (
                "subscribed",
                "It begins behind `cursor`.",
                *_of(id=_ID, cursor=_CURSOR),
                {"id": "a", "cursor": cursor - 12},
            ),
            ("event", "It happened.", *_of(id=_ID, cursor=_CURSOR, event=_EVENT), told),
            (
                "reset",
                "History behind the position asked for is gone, or it is of another tape: it goes on behind `cursor`.",
                *_of(id=_ID, horizon=_CURSOR, head=_CURSOR, cursor=_CURSOR),
                {"id": "a", "horizon": cursor - 12, "head": cursor, "cursor": cursor - 12},
            ),
            ("unsubscribed", "It has ended.", *_of(id=_ID), {"id": "a"}),
            ("keep-alive", "Nothing else up to `cursor`.", *_of(cursor=_CURSOR), {"cursor": cursor}),
            (
                "error",
                "A request that means nothing.",
                ("detail",),
                {"id": _NULLABLE, "detail": {"type": "string"}},
                {"id": "a", "detail": "there is no event 'done'"},
            ),
        )
    }


def _of(**properties: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return tuple(properties), properties


def _key(name: str) -> str:
    return f"socket.{name}"


def _message(
    name: str, summary: str, required: tuple[str, ...], properties: dict[str, Any], example: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "summary": summary,
        "contentType": "application/json",
        "payload": {
            "type": "object",
            "required": ["type", *required],
            "properties": {"type": {"const": name}, **properties},
        },
        "examples": [{"name": name, "payload": {"type": name, **example}}],
    }


def _operation(action: str, summary: str, names: tuple[str, ...]) -> dict[str, Any]:
    references = [{"$ref": f"{CHANNEL}/messages/{name}"} for name in names]
    return {"action": action, "channel": {"$ref": CHANNEL}, "summary": summary, "messages": references}
