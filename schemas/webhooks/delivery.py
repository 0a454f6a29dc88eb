"""The job ``jobtape.webhook``, which delivers one event to one endpoint: its payload, its id and its order.

A delivery has gates, so that its work is placed once however often it is submitted, and an id that follows from
endpoint and event. So an event is one job for an endpoint, whichever projector submits it, and however often.
"""

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobtape.schemas import ids
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.job_type import BUILTIN_PREFIX, WEBHOOK_QUEUE
from jobtape.schemas.queueing.gates import Gates

WEBHOOK: Final = f"{BUILTIN_PREFIX}webhook"
WEBHOOK_LABEL: Final = "webhook"
"""The label of a delivery that has the id of its endpoint."""
TEST_TYPE: Final = "webhook.test"
TIMEOUT: Final = 60.0
"""Seconds of an attempt: the request has twenty, the rest is for the database."""
DELAYS: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds between the attempts, after each of which the next one may be later by a part of ``JITTER``."""
JITTER: Final = 0.2
MAX_ATTEMPTS: Final = len(DELAYS) + 1

BodyKind = Literal["thin", "full"]
"""What an endpoint gets: which event it was, or the event with its data (result, error, order) too."""


class Delivery(BaseModel):
    """What is delivered where. ``body``: the JSON of the request. ``cursor``: that of the event whose data is added to
    the body when it is sent; None if nothing is.
    """

    model_config = ConfigDict(frozen=True)

    endpoint: str = Field(pattern=ids.UUID_PATTERN)
    body: dict[str, Any]
    cursor: int | None = None


def delivery_id(endpoint_id: str, event_id: str, time: datetime) -> str:
    """Return the id of the job that delivers an event: a UUIDv7 of the event's time, the same whoever submits it."""
    return ids.derived_id(f"webhook {endpoint_id} {event_id}", ids.first_id_at(time))


def delivery_order(delivery: Delivery) -> Order:
    """Return the order of the job of a delivery."""
    return Order(
        type=WEBHOOK,
        payload=delivery.model_dump(mode="json", exclude_none=True),
        queue=WEBHOOK_QUEUE,
        labels={WEBHOOK_LABEL: delivery.endpoint},
        timeout=TIMEOUT,
        max_attempts=MAX_ATTEMPTS,
        gates=Gates(),
    )


def event_body(
    *, event_id: str, name: str, time: datetime, cursor: int, job_id: str, job_type: str, state: str
) -> dict[str, Any]:
    """Return the thin body for an event, in the form of Standard Webhooks: ``type``, ``timestamp`` and ``data``.

    ``state``: the state of the job after the event.
    """
    return {
        "type": f"job.{name}",
        "timestamp": time.isoformat(),
        "data": {"event": event_id, "cursor": cursor, "job": job_id, "job_type": job_type, "state": state},
    }


def retry_delay(attempt: int, randomness: float, retry_after: float | None = None) -> float:
    """Return the seconds until the next attempt after the failed ``attempt``, which counts from 1.

    ``randomness``: from 0 to 1, for the jitter. ``retry_after``: the seconds that the endpoint asked for; more than a
    day counts as a day.
    """
    planned = DELAYS[min(attempt, len(DELAYS)) - 1] * (1 + JITTER * randomness)
    return max(planned, min(retry_after or 0.0, DELAYS[-1]))
