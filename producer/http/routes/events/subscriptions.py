"""``GET /subscriptions``: who gets events: readers of the committed history, and queues on the broker."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from jobtape.broker.management import SeenQueue
from jobtape.producer.http import openapi
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.representation import PydanticJSONResponse
from jobtape.schemas.topology import Topology
from jobtape.view.store import Subscription
from jobtape.view.subscribers.positions import MOST_BEHIND

router = APIRouter(tags=["operations"])


class SubscriptionOut(BaseModel):
    """A catch-up subscription with a name: `jobtape.subscribe(since=…, name=…)`."""

    name: str
    cursor: int = Field(description="It has handled all events up to here.")
    behind: int = Field(
        description="The number of events after that, whether they match its filter or not; "
        f"{MOST_BEHIND:,} also means more."
    )
    moved_at: datetime = Field(description="When its cursor moved last.")
    reader: str | None = Field(description="The process that reads now; null when none does.")


class QueueLimitsOut(BaseModel):
    """The limits of a queue, by its arguments and policies; null where it has none."""

    messages: int | None = Field(description="The largest number of messages.")
    bytes: int | None = Field(description="The largest size of all messages together.")
    age: str | None = Field(description="Of a stream: the largest age of a message, such as `7D`.")
    expires: float | None = Field(description="The seconds without a consumer after which the broker removes it.")


class LiveSubscriptionOut(BaseModel):
    """A queue that gets events: of `jobtape.subscribe()` without `since`, or of another program that has bound it to
    `<namespace>.results`.
    """

    name: str | None = Field(description="The name of a durable subscription; null for any other queue.")
    queue: str = Field(description="The queue's name on the broker.")
    messages: int | None = Field(description="How many messages it has; null in its first seconds.")
    consumers: int | None = Field(description="How many consumers read; null in its first seconds.")
    filter: str | None = Field(description="The filter of a durable subscription, as text.")
    limits: QueueLimitsOut


class SubscriptionsOut(BaseModel):
    """Those with a position, and those with a queue, each ordered by name."""

    items: list[SubscriptionOut] = Field(description="The catch-up subscriptions.")
    live: list[LiveSubscriptionOut] | None = Field(
        description="The live subscriptions as RabbitMQ's management API shows them, some seconds late; null when it "
        "does not answer."
    )
    live_reason: str | None = Field(description="Why `live` is null, and what to do.")


@router.get(
    "/subscriptions",
    response_model=SubscriptionsOut,
    summary="List the subscriptions",
    responses=openapi.problems(401, 422, 503),
    dependencies=[Depends(no_query)],
)
async def list_subscriptions(producer: RunningProducer) -> Response:
    """`items` are those that keep their position in the view. `live` are queues on the broker, which get events as
    they are published.
    """
    found, queues = await asyncio.gather(
        producer.read(producer.store.positions.subscriptions), producer.subscribers.queues()
    )
    now = datetime.now(UTC)
    live = None if queues.queues is None else [_live(each, producer.topology) for each in queues.queues]
    return PydanticJSONResponse(
        {"items": [_out(each, now) for each in found], "live": live, "live_reason": queues.reason}
    )


def _out(subscription: Subscription, now: datetime) -> dict[str, Any]:
    return {
        "name": subscription.name,
        "cursor": subscription.position.cursor,
        "behind": subscription.behind,
        "moved_at": now - subscription.position.idle,
        "reader": subscription.position.owner,
    }


def _live(queue: SeenQueue, topology: Topology) -> dict[str, Any]:
    name, expires = topology.subscription_of(queue.name), queue.limit("expires")
    return {
        "name": name,
        "queue": queue.name,
        "messages": queue.messages,
        "consumers": queue.consumers,
        # See ``Topology.subscription_queue``.
        "filter": None if name is None else queue.arguments.get("x-dead-letter-routing-key"),
        "limits": {
            "messages": queue.limit("max-length"),
            "bytes": queue.limit("max-length-bytes"),
            "age": queue.arguments.get("x-max-age") or queue.policy.get("max-age"),
            "expires": None if expires is None else expires / 1000,
        },
    }
