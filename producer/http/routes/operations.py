"""Job types, health and metrics."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel
from pydantic_core import to_json

from jobtape.producer.http import metrics, openapi
from jobtape.producer.http.auth import RunningProducer
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.relay_events import RelayMode

router = APIRouter(tags=["operations"])
open_router = APIRouter(tags=["operations"])
"""For probes, which carry no key."""


class JobTypeOut(BaseModel):
    """A job type; ``schemas`` holds the JSON Schemas of its ``payload``, in its newest ``version``, and ``result``."""

    name: str
    version: int
    queue: str
    timeout: float
    description: str
    schemas: dict[str, dict[str, Any]]


class JobTypesOut(BaseModel):
    """All job types, by name."""

    items: list[JobTypeOut]


class PartStatusOut(BaseModel):
    """``reason``: why it is not ready, and what to do."""

    ready: bool
    reason: str | None


class WorkersOut(BaseModel):
    """The consumers of one queue; null when that is not known."""

    consumers: int | None
    warning: str | None


class MissingQueueOut(BaseModel):
    """Messages that found no way on; null when that is not known."""

    messages: int | None
    warning: str | None


class RelayStatusOut(BaseModel):
    """How many seconds late subscribers get events; null when the relay is off, or that is not known."""

    mode: RelayMode | None
    behind: float | None
    warning: str | None


class ReadinessOut(BaseModel):
    """``parts``: broker, tape, view and projector. ``workers`` by queue, ``dead_ends`` and ``relay`` don't count for
    ``ready``.
    """

    ready: bool
    parts: dict[str, PartStatusOut]
    workers: dict[str, WorkersOut]
    dead_ends: dict[str, MissingQueueOut]
    relay: RelayStatusOut


@router.get(
    "/job-types",
    summary="What may be submitted",
    responses=openapi.answers(200, "JobTypesOut", "The job types.", 401, 503),
)
async def job_types(producer: RunningProducer) -> Response:
    """Their queues, time-outs and JSON Schemas."""
    return _json({"items": [_job_type(job_type) for _, job_type in sorted(producer.job_types.items())]})


@open_router.get("/health/live", summary="Is the process there?")
async def live() -> dict[str, bool]:
    """Always the same; a process that does not answer is to be restarted."""
    return {"live": True}


@open_router.get(
    "/health/ready",
    summary="Can it do its work?",
    responses={
        **openapi.answers(200, "ReadinessOut", "Every part is ready."),
        **openapi.answers(503, "ReadinessOut", "A part is not ready, and why."),
    },
)
async def ready(producer: RunningProducer) -> Response:
    """503 names the part that is not ready, why, and what to do. Queues without workers are a warning only."""
    state = await producer.health.readiness()
    return _json({"ready": state.ready, **asdict(state)}, 200 if state.ready else 503)


@router.get(
    "/metrics",
    summary="For Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **openapi.problems(401, 503)},
)
async def get_metrics(producer: RunningProducer) -> Response:
    """Events, lag and queues of the whole installation, the same from every API process."""
    return Response(await metrics.exposition(producer), media_type=metrics.MEDIA_TYPE)


def _job_type(job_type: JobTypeSpec) -> dict[str, Any]:
    return {
        "name": job_type.name,
        "version": job_type.version,
        "queue": job_type.queue,
        "timeout": job_type.timeout,
        "description": job_type.description,
        "schemas": job_type.json_schema(),
    }


def _json(value: object, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")
