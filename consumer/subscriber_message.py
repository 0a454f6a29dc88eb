"""An event as subscribers get it over AMQP: routing key, properties and body."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiormq import spec

from jobtape.broker.channels import PERSISTENT
from jobtape.schemas.delivered_event import CURSOR, encode_delivered
from jobtape.schemas.events import CONTENT_TYPE
from jobtape.schemas.topology import reply_key, result_key
from jobtape.view.store import CommittedEvent

SHORT: Final = 255
"""Bytes of AMQP's short strings."""
LABELS_ROOM: Final = 65_536
"""Bytes of labels in the headers, which must all fit into one frame; the broker allows 128 KiB."""


_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class SubscriberMessage:
    """What is published to ``<ns>.results``."""

    key: str
    properties: spec.Basic.Properties
    body: bytes


def subscriber_message(row: CommittedEvent, more: Mapping[str, str] = _NOTHING) -> SubscriberMessage:
    """The message of an accepted event, which gets the attributes ``more``. What AMQP has no room for is in the body
    alone.
    """
    job = row.after
    headers: dict[str, Any] = {CURSOR: row.cursor, "job": job.id, "job_type": job.type, "state": job.state.value}
    labels = job.labels or {}
    if all(len(name.encode()) <= SHORT for name in labels) and _size(labels) <= LABELS_ROOM:
        headers["labels"] = labels
    if job.reply_to is not None and _short(key := reply_key(job.reply_to)):
        headers["CC"] = [key]
    correlation_id = job.correlation_id
    properties = spec.Basic.Properties(
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        message_id=row.event_id,
        correlation_id=correlation_id if correlation_id is not None and _short(correlation_id) else None,
        message_type=row.name,
        timestamp=row.time,
        headers=headers,
    )
    return SubscriberMessage(result_key(row.name, job.type), properties, encode_delivered(row.event, row.cursor, more))


def _short(text: str) -> bool:
    return len(text.encode()) <= SHORT


def _size(labels: dict[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) + 8 for name, value in labels.items())
