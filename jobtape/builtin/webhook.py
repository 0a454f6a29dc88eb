"""``jobtape.webhook``: delivers an event to an endpoint of a webhook.

It runs in the projector's process, on the event loop of a worker of its own, and reads the endpoint for each attempt.
So a new URL, a new secret or the end of the endpoint counts from the next attempt on.
"""

import asyncio
import random
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from jobtape.jobs import job
from jobtape.schemas import plainjson
from jobtape.schemas.execution.context import Context
from jobtape.schemas.execution.retry import Fail, Retry, RetryPolicy
from jobtape.schemas.job_types.job_type import WEBHOOK_QUEUE
from jobtape.schemas.webhooks.delivery import (
    DELAYS,
    MAX_ATTEMPTS,
    TEST_TYPE,
    TIMEOUT,
    WEBHOOK,
    Delivery,
    retry_delay,
)
from jobtape.settings import read_settings
from jobtape.telemetry.tracing import HEADER, read_traceparent

if TYPE_CHECKING:
    from jobtape.view.store import Store, Webhook
    from jobtape.webhooks.addresses import Network
    from jobtape.webhooks.sender import Sender

GONE: Final = 410
_RETRY: Final = RetryPolicy(max_attempts=MAX_ATTEMPTS, first=DELAYS[0], factor=6, longest=DELAYS[-1])
"""For errors that are not the endpoint's, such as a database that is away. The handler itself says when it retries."""


class NotDelivered(Retry):
    """The endpoint has not taken the event."""


class Delivered(BaseModel):
    """The result of a delivery."""

    status: int = Field(description="The status that the endpoint answered.")
    seconds: float = Field(description="How long the answer took.")


@job(WEBHOOK, queue=WEBHOOK_QUEUE, timeout=TIMEOUT, retry=_RETRY)
async def webhook(ctx: Context, delivery: Delivery) -> Delivered:
    """Send an event to an endpoint of a webhook, as Standard Webhooks describes it, until it answers 2xx."""
    if ctx.shadow:
        raise Fail("a shadow run sends nothing")
    settings = read_settings()
    store, sender = _store(settings.database_url), _sender(settings.webhook_allow)
    endpoint = await asyncio.to_thread(store.webhooks.read, delivery.endpoint)
    if endpoint is None:
        raise Fail("the webhook was deleted")
    is_test = delivery.body.get("type") == TEST_TYPE
    if not endpoint.enabled and not is_test:
        raise Fail(f"the webhook is disabled ({endpoint.disabled_because}): enable it, then replay")
    body = plainjson.dumps(await asyncio.to_thread(_whole_body, store, delivery))
    headers = _headers(endpoint, ctx.job_id, body)
    if (traceparent := read_traceparent(ctx.traceparent)) is not None:
        headers[HEADER] = traceparent

    from jobtape.webhooks.sender import NotSent  # noqa: PLC0415 - HTTP and TLS, which the API does not need

    try:
        answer = await sender.post(endpoint.url, headers, body)
    except NotSent as error:
        raise await _failed(ctx, store, endpoint, str(error), None) from None
    if 200 <= answer.status < 300:
        if endpoint.failing_since is not None:
            await asyncio.to_thread(store.webhooks.note_success, endpoint.id)
        return Delivered(status=answer.status, seconds=round(answer.seconds, 3))
    if answer.status == GONE:
        await asyncio.to_thread(store.webhooks.disable, endpoint.id, "the endpoint answered 410 Gone")
        raise Fail("the endpoint answered 410 Gone: the webhook is disabled")
    raise await _failed(ctx, store, endpoint, f"the endpoint answered {answer.status}", answer.retry_after)


async def _failed(
    ctx: Context, store: "Store", endpoint: "Webhook", error: str, retry_after: float | None
) -> NotDelivered:
    """Note that an attempt failed, and return the exception for it."""
    if await asyncio.to_thread(store.webhooks.note_failure, endpoint.id, error):
        ctx.log.warning("the webhook %s is disabled: every attempt of the last five days failed", endpoint.id)
    return NotDelivered(retry_delay(ctx.attempt, random.random(), retry_after), error)  # noqa: S311 - only jitter


def _whole_body(store: "Store", delivery: Delivery) -> dict[str, Any]:
    """Return the body, with the whole event if it is to be sent. Raises Fail when the event is not kept any more."""
    if delivery.cursor is None:
        return delivery.body
    rows = store.history(after=delivery.cursor - 1, limit=1)
    if not rows or rows[0].cursor != delivery.cursor:
        raise Fail("the event is not kept any more (JOBTAPE_JOB_RETENTION)")
    from jobtape.schemas.messages.delivered_event import delivered  # noqa: PLC0415

    event = delivered(rows[0].event, delivery.cursor)
    return {**delivery.body, "data": {**delivery.body["data"], "event_data": event["data"]}}


def _headers(endpoint: "Webhook", message_id: str, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks. Raises WebhookKeyMissing and SecretKeysWrong."""
    from jobtape.webhooks.secrets import secret_cipher, signature  # noqa: PLC0415

    cipher, now = secret_cipher(), int(time.time())
    signatures = [signature(cipher.decrypt(secret.decode()), message_id, now, body) for secret in endpoint.secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(signatures),
    }


@cache
def _store(url: str) -> "Store":
    """The view, opened once in a process."""
    from jobtape.view.store import Store  # noqa: PLC0415

    return Store(url)


@cache
def _sender(allowed: "tuple[Network, ...]") -> "Sender":
    from jobtape.webhooks.sender import Sender  # noqa: PLC0415

    return Sender(allowed)
