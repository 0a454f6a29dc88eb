"""An event as subscribers get it over AMQP: routing key, properties and body."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiormq import spec

from jobtape.broker.channels import PERSISTENT
from jobtape.schemas import plainjson
from jobtape.schemas.delivered_event import CURSOR, delivered
from jobtape.schemas.events import CONTENT_TYPE
from jobtape.schemas.topology import reply_key, result_key
from jobtape.view.store import CommittedEvent

SHORT_STRING: Final = 255
"""Bytes of the longest short string in AMQP."""
MAX_LABELS: Final = 65_536
"""Bytes of labels in the headers. All headers must fit into one frame, and the broker allows frames of 128 KiB."""
_NO_ATTRIBUTES: Final[Mapping[str, str]] = {}


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
    event = delivered(row.event, row.cursor)
    headers: dict[str, Any] = {
        CURSOR: row.cursor,
        "job": row.job_id,
        "job_type": row.job_type,
        "state": row.state.value,
    }
    labels = row.labels
    size = sum(len(name.encode()) + len(value.encode()) + 8 for name, value in labels.items())
    if size <= MAX_LABELS and all(map(_fits, labels)):
        headers["labels"] = dict(labels)
    if row.reply_to is not None and _fits(key := reply_key(row.reply_to)):
        headers["CC"] = [key]
    correlation_id = row.correlation_id
    properties = spec.Basic.Properties(
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
