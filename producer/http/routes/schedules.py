"""Schedules: jobs that are submitted again and again. Each is a job that is never run, with the order of the others."""

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobtape.producer.http import openapi
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse, accepted
from jobtape.producer.http.request_body import SmallJson
from jobtape.producer.http.routes.rules import RulesEndedOut
from jobtape.producer.producer import Producer
from jobtape.producer.service import rules
from jobtape.schemas.job import Job
from jobtape.schemas.rules.schedule import Schedule, ScheduleName, Ticks
from jobtape.schemas.submission import Submission, read_submission

MOST_TICKS: Final = 100
_TICKS: Final = frozenset(Ticks.model_fields)

router = APIRouter(tags=["schedules"])
Name = Annotated[ScheduleName, Path(alias="name")]


class ScheduleBody(Ticks):
    """When to submit a job, and which: the other fields are those of ``POST /jobs``."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(min_length=1, max_length=120, description="A job type of `GET /job-types`.")
    payload: dict[str, Any] = Field(default_factory=dict)
    queue: str | None = None
    timeout: float | None = None
    max_attempts: int | None = None
    ordering_key: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None


class ScheduleOut(Ticks):
    """A schedule. ``id``: the rule's job. ``next``: its next ticks, in UTC."""

    name: str
    id: str
    type: str
    payload: dict[str, Any]
    queue: str
    labels: dict[str, str]
    next: list[datetime]


class SchedulesOut(BaseModel):
    """All schedules, by name."""

    items: list[ScheduleOut]


@router.put(
    "/schedules/{name}",
    status_code=202,
    response_model=JobOut,
    summary="Create or replace a schedule",
    response_description="The schedule, a job that is in force until it is cancelled.",
    responses=openapi.problems(400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(
        ScheduleBody,
        example={"type": "report", "payload": {}, "cron": "0 9 * * MON-FRI", "tz": "Europe/Berlin"},
    ),
    dependencies=[Depends(no_query)],
)
async def put_schedule(name: Name, producer: RunningProducer, body: SmallJson) -> Response:
    """The projector submits the job at each tick, once, whichever projector is active. The jobs have the label
    `schedule`. The same schedule again changes nothing.
    """
    return accepted(await rules.put_schedule(producer, _schedule(producer, name, body)))


@router.get(
    "/schedules",
    response_model=SchedulesOut,
    summary="List the schedules",
    responses=openapi.problems(401, 422, 503),
)
async def list_schedules(producer: RunningProducer) -> Response:
    """With the next tick of each, unless it is paused or over."""
    found = await rules.schedules(producer)
    return PydanticJSONResponse({"items": [_out(rule, schedule, 1) for rule, schedule in found]})


@router.get(
    "/schedules/{name}",
    response_model=ScheduleOut,
    summary="Read a schedule",
    responses=openapi.problems(401, 404, 422, 503),
)
async def read_schedule(
    name: Name,
    producer: RunningProducer,
    ticks: Annotated[int, Query(ge=0, le=MOST_TICKS, description="How many of the next ticks to show.")] = 10,
) -> Response:
    """With its next ticks."""
    return PydanticJSONResponse(_out(*await _existing(producer, name), ticks))


@router.delete(
    "/schedules/{name}",
    response_model=RulesEndedOut,
    summary="Delete a schedule",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def delete_schedule(name: Name, producer: RunningProducer) -> Response:
    """There are no more ticks. Jobs that were submitted go on."""
    await _existing(producer, name)
    return PydanticJSONResponse({"ended": await rules.delete_schedule(producer, name)})


@router.post(
    "/schedules/{name}/pause",
    status_code=202,
    response_model=JobOut,
    summary="Pause a schedule",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def pause_schedule(name: Name, producer: RunningProducer) -> Response:
    """Nothing is submitted until it is resumed. Ticks of that time are missed."""
    return accepted(await _set_paused(producer, name, paused=True))


@router.post(
    "/schedules/{name}/resume",
    status_code=202,
    response_model=JobOut,
    summary="Resume a schedule",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def resume_schedule(name: Name, producer: RunningProducer) -> Response:
    """The next tick is the first one after now."""
    return accepted(await _set_paused(producer, name, paused=False))


@router.post(
    "/schedules/{name}/trigger",
    status_code=202,
    response_model=JobOut,
    summary="Submit a schedule's job now",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def trigger_schedule(name: Name, producer: RunningProducer) -> Response:
    """A job besides those of the ticks."""
    _, schedule = await _existing(producer, name)
    return accepted(await producer.submit_order(schedule.order_for()))


async def _existing(producer: Producer, name: str) -> tuple[Job, Schedule]:
    found = await rules.schedules(producer, name)
    if not found:
        raise Problem("schedule-not-found", f"there is no schedule {name!r}: `GET /schedules` lists them")
    return found[-1]


async def _set_paused(producer: Producer, name: str, *, paused: bool) -> Job:
    _, schedule = await _existing(producer, name)
    return await rules.put_schedule(producer, schedule.model_copy(update={"paused": paused}))


def _schedule(producer: Producer, name: str, body: Any) -> Schedule:
    try:
        read = ScheduleBody.model_validate(body)
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
        raise Problem("invalid-schedule", f"{faults[0][0] or 'the body'}: {faults[0][1]}", errors=faults) from None
    wanted = read.model_dump(exclude=set(_TICKS), exclude_unset=True)
    order = producer.order(read_submission({"payload": {}} | wanted, Submission))
    return Schedule(name=name, order=order, **read.model_dump(include=set(_TICKS)))


def _out(rule: Job, schedule: Schedule, ticks: int) -> dict[str, Any]:
    order = schedule.order
    following = [] if schedule.paused else list(islice(schedule.after(datetime.now(UTC)), ticks))
    return {
        **schedule.model_dump(include=set(_TICKS)),
        "name": schedule.name,
        "id": rule.id,
        **{name: getattr(order, name) for name in ("type", "payload", "queue", "labels")},
        "next": following,
    }
