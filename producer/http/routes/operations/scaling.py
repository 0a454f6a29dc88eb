"""``GET /scaling``: how much work a queue has, for autoscalers."""

from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import RunningProducer
from jobtape.producer.http.problems import Problem
from jobtape.producer.http.representation import PydanticJSONResponse
from jobtape.schemas.job import WorkQueueName
from jobtape.schemas.queueing.lanes import lanes_of, queues_of

DEFAULT_SLOTS: Final = 40
"""The slots of a worker, as long as none says how many it has."""

router = APIRouter(tags=["operations"])


class ScalingOut(BaseModel):
    """The work of a queue with its lanes, without jobs that are held or due later."""

    ready: int = Field(description="Jobs that wait for a worker, or have just begun.")
    running: int
    oldest_seconds: float = Field(
        description="For how long the job has been due that has waited longest; 0 if none waits."
    )
    wanted: int = Field(description="How many workers have a slot for each job that is ready or runs.")


@router.get(
    "/scaling",
    response_model=ScalingOut,
    summary="Get how many workers a queue needs",
    responses=openapi.problems(401, 403, 404, 422, 503),
)
async def get_scaling(
    request: Request,
    producer: RunningProducer,
    queue: Annotated[WorkQueueName, Query(description="A queue; its lanes are counted too.")],
    slots: Annotated[
        int | None,
        Query(
            ge=1,
            le=1000,
            description="How many jobs a worker runs at the same time (`JOBTAPE_CONCURRENCY`). By default as many as "
            f"the workers that serve the queue now have on average, {DEFAULT_SLOTS} if there is none.",
        ),
    ] = None,
) -> Response:
    """For KEDA's scaler `metrics-api`, and other autoscalers. The numbers are those that the view has now, without a
    count of messages or rows.
    """
    types = caller_of(request).types
    known = [spec for name, spec in producer.job_types.items() if not types or name in types]
    now = await producer.statistics.now()
    counts = [count for count in now.jobs if not types or count.type in types]
    lanes = lanes_of(queue)
    if not {*queues_of(known), *(count.queue for count in counts)} & {*lanes}:
        raise Problem("not-found", f"there is no queue {queue!r}: it has no jobs, and no job type names it")
    ready = sum(count.n for count in counts if count.queue in lanes and count.state == "queued")
    running = sum(count.n for count in counts if count.queue in lanes and count.state == "running")
    due = [now.oldest[lane].run_at for lane in lanes if lane in now.oldest and ready]
    oldest = max(0.0, (datetime.now(UTC) - min(due)).total_seconds()) if due else 0.0
    if slots is None:
        signs = [each.sign for each in await producer.read(producer.store.worker_signs.all) if each.state == "alive"]
        serving = [sign.slots for sign in signs if {*lanes} & {*sign.queues}]
        slots = max(1, round(sum(serving) / len(serving))) if serving else DEFAULT_SLOTS
    wanted = ceil((ready + running) / slots)
    return PydanticJSONResponse(
        {"ready": ready, "running": running, "oldest_seconds": round(oldest, 3), "wanted": wanted}
    )
