"""``GET /subscriptions``: who reads the committed history, and how far each has come."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from jobtape.producer.http import openapi
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.representation import PydanticJSONResponse
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


class SubscriptionsOut(BaseModel):
    """The subscriptions, ordered by name."""

    items: list[SubscriptionOut]


@router.get(
    "/subscriptions",
    response_model=SubscriptionsOut,
    summary="List the catch-up subscriptions",
    responses=openapi.problems(401, 422, 503),
    dependencies=[Depends(no_query)],
)
async def list_subscriptions(producer: RunningProducer) -> Response:
    """Those that keep their position in the view. A live subscription has none: it is a queue on the broker, which
    `jobtape subscriptions list` shows.
    """
    found = await producer.read(producer.store.positions.subscriptions)
    now = datetime.now(UTC)
    return PydanticJSONResponse({"items": [_out(each, now) for each in found]})


def _out(subscription: Subscription, now: datetime) -> dict[str, Any]:
    return {
        "name": subscription.name,
        "cursor": subscription.position.cursor,
        "behind": subscription.behind,
        "moved_at": now - subscription.position.idle,
        "reader": subscription.position.owner,
    }
