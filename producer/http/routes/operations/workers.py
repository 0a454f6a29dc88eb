"""``GET /workers``: the worker processes and what they run."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.representation import PydanticJSONResponse
from jobtape.schemas.messages.worker_sign import MOST_EXECUTIONS, SILENT_AFTER, RunningExecution
from jobtape.schemas.queueing.lanes import queues_of
from jobtape.view.store import SeenWorker

router = APIRouter(tags=["operations"])


class WorkerOut(BaseModel):
    """A worker as it was at its last sign of life."""

    id: str = Field(description="New after each start.")
    name: str = Field(description="As in the `worker` of events.")
    host: str
    pid: int
    version: str = Field(description="Of Jobtape.")
    state: Literal["alive", "draining", "silent"] = Field(
        description=f"`silent`: no sign for {SILENT_AFTER:g} s; it was killed, or cannot reach the broker."
    )
    fault: str | None = Field(description="Why it takes no jobs; null while it does.")
    started_at: datetime
    last_seen: datetime
    queues: list[str]
    job_types: list[str]
    slots: int = Field(description="How many jobs it runs at the same time.")
    running: int = Field(description="How many slots are in use.")
    executions: list[RunningExecution] = Field(
        description=f"What it runs, the oldest {MOST_EXECUTIONS}. `settled`: the job has ended, its handler has not."
    )


class WorkersOut(BaseModel):
    """The workers, ordered by name. ``collected``: whether a projector is active, without which no sign arrives."""

    items: list[WorkerOut]
    collected: bool


@router.get(
    "/workers",
    response_model=WorkersOut,
    summary="List the workers",
    responses=openapi.problems(401, 422, 503),
    dependencies=[Depends(no_query)],
)
async def list_workers(request: Request, producer: RunningProducer) -> Response:
    """Each is shown as it was at its last sign of life, which comes every 10 s, more often from a busy worker. A worker
    that stops disappears at once, and one that was killed after a minute, or when another worker has begun the last
    job that it ran. The list contains the workers for the built-in jobs, which run beside the projectors.
    """
    workers = await producer.read(producer.store.worker_signs.listed)
    checkpoint = await producer.read(producer.store.checkpoint)
    collected = checkpoint is not None and checkpoint.lease_left > 0
    types = caller_of(request).types
    if types:
        known = [spec for name, spec in producer.job_types.items() if name in types]
        items = [_limited(worker, types, {*queues_of(known)}) for worker in workers if types & {*worker.sign.job_types}]
    else:
        items = [_out(worker) for worker in workers]
    return PydanticJSONResponse({"items": items, "collected": collected})


def _limited(worker: SeenWorker, types: frozenset[str], queues: set[str]) -> dict[str, Any]:
    """Return the fields of ``WorkerOut`` without what is about other job types than ``types``."""
    shown = _out(worker)
    for name, seen in (("job_types", types), ("queues", queues)):
        shown[name] = [each for each in shown[name] if each in seen]
    shown["executions"] = [each for each in shown["executions"] if each["type"] in types]
    shown["fault"] = None if worker.sign.fault is None else "it takes no jobs: ask who runs the workers"
    return shown


def _out(worker: SeenWorker) -> dict[str, Any]:
    return {**asdict(worker.sign), "state": worker.state, "last_seen": worker.seen_at}
