"""Publishes messages to ``<ns>.results`` as the relay does."""

from collections.abc import Mapping
from typing import Any

import aio_pika

from jobtape.schemas.events import CONTENT_TYPE, JobEvent, encode
from jobtape.schemas.messages.delivered_event import encode_delivered
from jobtape.schemas.topology import result_key
from tests.consumer.installation import Rig


async def publish_event(rig: Rig, event: JobEvent, cursor: int, *, labels: Mapping[str, str] | None = None) -> None:
    """Publish an event, and return when all bound queues have confirmed it."""
    await publish_body(
        rig,
        encode_delivered(encode(event).decode(), cursor),
        result_key(event.name, event.data.job_type),
        event,
        labels,
    )


async def publish_body(
    rig: Rig, body: bytes, key: str, event: JobEvent | None = None, labels: Mapping[str, str] | None = None
) -> None:
    """Publish a message with any body."""
    headers: dict[str, Any] = {"labels": dict(labels or {})}
    message = aio_pika.Message(
        body,
        content_type=CONTENT_TYPE,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=None if event is None else event.id,
        headers=headers,
    )
    channel = await (await rig.link.connection()).channel()
    async with channel:
        exchange = await channel.get_exchange(rig.topology.results.name, ensure=False)
        await exchange.publish(message, key, mandatory=False)
