"""``GET /job-types``, the health probes and ``GET /metrics``."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import RunningProducer
from jobtape.producer.http.representation import PydanticJSONResponse
from jobtape.producer.http.routes.operations import metrics
from jobtape.producer.monitoring.health import (
    DeadLetterStatus,
    OutboxStatus,
    PartStatus,
    RelayStatus,
    TimerStatus,
    Workers,
)
from jobtape.schemas.job_types.declared_gates import OnFailure
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.queueing.lanes import Lane
from jobtape.schemas.rules.schedule import Ticks

router = APIRouter(tags=["operations"])
open_router = APIRouter(tags=["operations"])
"""The routes of probes, which need no key."""


class LimitOut(BaseModel):
    """A limit of a job type: ``per`` is null unless it is a rate. ``by``: the field or label whose values have a limit
    each.
    """

    name: str
    at_most: int
    per: float | None
    by: str | None


class UniqueOut(BaseModel):
    """Of the job types with this ``name``, one job with the same values of ``by`` is open at a time. ``conflict`` is
    ``return`` or ``replace``.
    """

    name: str
    by: list[str]
    conflict: str


class DebounceOut(BaseModel):
    """Of the jobs of the job types with this ``name`` and the same values of ``by``, the last one runs, ``seconds``
    after its submission, and at the latest ``at_most`` seconds after the first.
    """

    name: str
    by: list[str]
    seconds: float
    at_most: float | None


class DeclaredScheduleOut(Ticks):
    """A schedule in the code of a job type. `GET /schedules` shows which are in force."""

    name: str
    payload: dict[str, Any]
    labels: dict[str, str]


class JobTypeOut(BaseModel):
    """A job type. ``schemas`` has the JSON Schemas of ``payload``, in its newest ``version``, and of ``result``."""

    name: str
    version: int
    queue: str
    lane: Lane | None
    timeout: float
    description: str
    ordering_key: str | None
    on_failure: OnFailure
    limits: list[LimitOut]
    take_turns: str | None
    unique: UniqueOut | None
    debounce: DebounceOut | None
    schedules: list[DeclaredScheduleOut]
    schemas: dict[str, dict[str, Any]]


class JobTypesOut(BaseModel):
    """All job types, ordered by name."""

    items: list[JobTypeOut]


class ReadinessOut(BaseModel, json_schema_serialization_defaults_required=True):
    """``parts`` contains broker, tape, view and projector. ``ready`` does not depend on ``workers`` (by queue),
    ``timers``, ``dead_letters``, ``relay``, ``outbox`` (null where this process forwards none) and ``lag``, the seconds
    that an event published now takes to reach the view.
    """

    ready: bool
    parts: dict[str, PartStatus]
    workers: dict[str, Workers]
    timers: TimerStatus
    dead_letters: DeadLetterStatus
    relay: RelayStatus
    lag: float | None
    outbox: OutboxStatus | None


@router.get(
    "/job-types",
    response_model=JobTypesOut,
    summary="List the job types",
    responses=openapi.problems(401, 503),
)
async def job_types(request: Request, producer: RunningProducer) -> Response:
    """Their queues, timeouts, limits, schedules and JSON Schemas."""
    types = caller_of(request).types or producer.job_types.keys()
    known = sorted(producer.job_types.items())
    return PydanticJSONResponse({"items": [_job_type(spec) for name, spec in known if name in types]})


@open_router.get("/health/live", summary="Liveness probe")
async def live() -> dict[str, bool]:
    """The response is always the same. Restart a process that does not respond."""
    return {"live": True}


@open_router.get(
    "/health/ready",
    response_model=ReadinessOut,
    summary="Readiness probe",
    response_description="Every part is ready.",
    responses={503: {"model": ReadinessOut, "description": "A part is not ready, and why."}},
)
async def ready(producer: RunningProducer) -> Response:
    """503 names the part that is not ready, why, and what to do. A queue without workers is only a warning."""
    state = await producer.health.readiness()
    return PydanticJSONResponse({"ready": state.ready, **asdict(state)}, 200 if state.ready else 503)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    summary="Metrics for Prometheus",
    responses=openapi.problems(401, 503),
)
async def get_metrics(producer: RunningProducer) -> Response:
    """Events, lag and queues of the whole installation, the same from every API process."""
    return Response(await metrics.exposition(producer), media_type=metrics.MEDIA_TYPE)


def _job_type(job_type: JobTypeSpec) -> dict[str, Any]:
    fields = {name: getattr(job_type, name) for name in ("name", "version", "queue", "lane", "timeout", "description")}
    declared = job_type.declared_gates
    limits = [
        {
            "name": limit.name or job_type.name,
            "at_most": limit.at_most,
            "per": getattr(limit, "per", None),
            "by": limit.by,
        }
        for limit in declared.limits
    ]
    schedules = [
        {
            **each.ticks.model_dump(),
            "name": each.name,
            "payload": job_type.secrets.masked(each.payload),
            "labels": each.labels,
        }
        for each in job_type.schedules
    ]
    unique, debounce = (
        None if each is None else {**asdict(each), "name": each.name or job_type.name}
        for each in (declared.unique, declared.debounce)
    )
    return {
        **fields,
        "ordering_key": declared.ordering_key,
        "on_failure": declared.on_failure,
        "limits": limits,
        "take_turns": declared.take_turns,
        "unique": unique,
        "debounce": debounce,
        "schedules": schedules,
        "schemas": job_type.json_schema(),
    }
