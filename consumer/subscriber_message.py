"""An event as subscribers get it over AMQP: routing key, properties and body."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from aiormq import spec
from pamqp import encode

from jobtape.broker.channels import PERSISTENT
from jobtape.schemas import plainjson
from jobtape.schemas.events import CONTENT_TYPE
from jobtape.schemas.messages.delivered_event import CURSOR, delivered
from jobtape.schemas.topology import reply_key, result_key
from jobtape.telemetry.tracing import HEADER, read_traceparent
from jobtape.view.store import CommittedEvent

SHORT_STRING: Final = 255
"""Bytes of the longest short string in AMQP."""
MAX_LABELS: Final = 65_536
"""Bytes of labels in the headers. All headers must fit into one frame, and the broker allows frames of 128 KiB."""
_NO_ATTRIBUTES: Final[Mapping[str, str]] = {}


_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _CORRELATION_ID, _MESSAGE_ID, _TIMESTAMP, _TYPE = (
    0x8000,
    0x2000,
    0x1000,
    0x0400,
    0x0080,
    0x0040,
    0x0020,
)
"""The flags of the properties, which also say their order (AMQP 0-9-1, section 4.2.6.1)."""


class EventProperties(spec.Basic.Properties):
    """Properties of an event for subscribers. They are marshalled here, as pamqp takes five times as long."""

    def marshal(self) -> bytes:
        """Return flags and properties. Raises ValueError or struct.error for what AMQP cannot carry."""
        headers: Mapping[str, Any] = self.headers or {}
        table = b"".join([_header(name, value) for name, value in headers.items()])
        flags = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _TIMESTAMP | _TYPE
        parts = [b"", _short(self.content_type or ""), struct.pack(">I", len(table)), table, bytes((PERSISTENT,))]
        if self.correlation_id:
            flags |= _CORRELATION_ID
            parts.append(_short_string(self.correlation_id))
        parts.append(_short_string(self.message_id or ""))
        assert self.timestamp is not None
        parts.append(struct.pack(">Q", int(self.timestamp.timestamp())))
        parts.append(_short(self.message_type or ""))
        parts[0] = struct.pack(">H", flags)
        return b"".join(parts)


def _header(name: str, value: Any) -> bytes:
    if type(value) is str:
        text = value.encode()
        return b"%bS%b%b" % (_short(name), struct.pack(">I", len(text)), text)
    if type(value) is int:
        return b"%bl%b" % (_short(name), struct.pack(">q", value))
    return _short(name) + encode.encode_table_value(value)


def _short_string(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw


_short = lru_cache(256)(_short_string)
"""For the few texts that come again and again."""


@dataclass(frozen=True, slots=True)
class SubscriberMessage:
    """A message for subscribers; ``key`` is its routing key."""

    key: str
    properties: spec.Basic.Properties
    body: bytes


def subscriber_message(row: CommittedEvent, attributes: Mapping[str, str] = _NO_ATTRIBUTES) -> SubscriberMessage:
    """Build the message of an accepted event, and add ``attributes`` to the event's envelope.

    A correlation id, labels or ``reply_to`` that AMQP has no room for are in the body only.
    """
    event = delivered(row.event, row.cursor, row.job_traceparent)
    headers: dict[str, Any] = {
        CURSOR: row.cursor,
        "job": row.job_id,
        "job_type": row.job_type,
        "state": row.state.value,
    }
    if (traceparent := read_traceparent(event.get(HEADER))) is not None:
        headers[HEADER] = traceparent
    labels = row.labels
    size = sum(len(name.encode()) + len(value.encode()) + 8 for name, value in labels.items())
    if size <= MAX_LABELS and all(map(_fits, labels)):
        headers["labels"] = dict(labels)
    if row.reply_to is not None and _fits(key := reply_key(row.reply_to)):
        headers["CC"] = [key]
    correlation_id = row.correlation_id
    properties = EventProperties(
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        message_id=event["id"],
        correlation_id=correlation_id if correlation_id is not None and _fits(correlation_id) else None,
        message_type=row.name,
        timestamp=row.time,
        headers=headers,
    )
    body = plainjson.dumps({**event, **attributes})
    return SubscriberMessage(result_key(row.name, row.job_type), properties, body)


def _fits(text: str) -> bool:
    return len(text.encode()) <= SHORT_STRING
