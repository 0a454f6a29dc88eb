"""Schedules: jobs that are submitted again and again. Each is a job that is never run, with the order of the others."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobtape.process import clock
from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import RunningProducer, no_query
from jobtape.producer.http.problems import Problem, pointer
from jobtape.producer.http.representation import JobOut, PydanticJSONResponse, accepted
from jobtape.producer.http.request_body import SmallJson
from jobtape.producer.http.routes.rules.rules import Committed, RulesEndedOut
from jobtape.producer.producer import Producer
from jobtape.producer.service import rules
from jobtape.schemas.access import Caller, Forbidden
from jobtape.schemas.job import Job, JobState, Utc
from jobtape.schemas.job_types.secrets import without_secrets
from jobtape.schemas.queueing.lanes import Lane
from jobtape.schemas.rules.schedule import Schedule, ScheduleName, Ticks
from jobtape.schemas.submission import Submission, read_submission

MOST_TICKS: Final = 100
MOST_BACKFILLED: Final = 1000
MOST_SYNCED: Final = 1000
_TICKS: Final = frozenset(Ticks.model_fields)

M = TypeVar("M", bound=BaseModel)
router = APIRouter(tags=["schedules"])
Name = Annotated[ScheduleName, Path(alias="name")]
IfMatch = Annotated[
    str | None,
    Header(description="The `ETag` of `GET /schedules/{name}`: 412 if the schedule has changed since then."),
]


class ScheduleBody(Ticks):
    """When to submit a job, and which: the other fields are those of ``POST /jobs``."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(min_length=1, max_length=120, description="A job type of `GET /job-types`.")
    payload: dict[str, Any] = Field(default_factory=dict)
    queue: str | None = None
    lane: Lane | None = None
    timeout: float | None = None
    max_attempts: int | None = None
    ordering_key: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None


class NamedScheduleBody(ScheduleBody):
    """A schedule with its name."""

    name: ScheduleName


class SyncBody(BaseModel):
    """All schedules of the code ``origin``. With ``dry_run`` nothing is changed."""

    model_config = ConfigDict(extra="forbid")

    origin: ScheduleName
    items: list[NamedScheduleBody] = Field(max_length=MOST_SYNCED)
    dry_run: bool = False


class SyncedOut(BaseModel):
    """The names of schedules by what was done, or would be. ``refused``: they did not come from this code and are left
    as they are.
    """

    created: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]
    refused: list[str]


class BackfillBody(BaseModel):
    """The ticks from ``since`` on and before ``until`` (default: now), the first ``limit`` of them."""

    model_config = ConfigDict(extra="forbid")

    since: Utc
    until: Utc | None = None
    limit: int = Field(100, ge=1, le=MOST_BACKFILLED, strict=True)


class TickJobOut(BaseModel):
    """A past tick and the id of its job."""

    at: datetime
    job: str


class BackfilledOut(BaseModel):
    """``submitted``: the jobs of ticks that had none. ``existing``: how many ticks had one. ``next``: the first tick
    that was left out because of the limit; continue there.
    """

    submitted: list[TickJobOut]
    existing: int
    next: datetime | None


class LatestJobOut(BaseModel):
    """The newest job of a schedule."""

    id: str
    state: JobState
    submitted_at: datetime | None


class ScheduleOut(Ticks):
    """A schedule. ``id``: the rule's job. ``origin``: the code that it came from; null for one that was made by hand.
    ``next``: its next tick, in UTC; null while it is paused, and when it is over. ``latest``: its newest job.
    """

    name: str
    id: str
    type: str
    payload: dict[str, Any]
    queue: str
    labels: dict[str, str]
    origin: str | None
    next: datetime | None
    latest: LatestJobOut | None


class SchedulesOut(BaseModel):
    """All schedules, by name."""

    items: list[ScheduleOut]


class TickOut(BaseModel):
    """A tick. ``at``: its time in UTC. ``local``: in the schedule's zone. ``clock_change``: whether clocks are set
    forward or back there on that day. ``job``: the id of its job, which exists from the tick on.
    """

    at: datetime
    local: datetime
    clock_change: bool
    job: str


class TicksOut(BaseModel):
    """The next ticks of a schedule."""

    items: list[TickOut]


@router.put(
    "/schedules/{name}",
    status_code=202,
    response_model=JobOut,
    summary="Create or replace a schedule",
    response_description="The schedule, a job that is in force until it is cancelled.",
    responses=openapi.problems(400, 401, 408, 409, 412, 413, 415, 422, 503),
    openapi_extra=openapi.body(
        ScheduleBody,
        example={"type": "report", "payload": {}, "cron": "0 9 * * MON-FRI", "tz": "Europe/Berlin"},
    ),
    dependencies=[Depends(no_query)],
)
async def put_schedule(
    name: Name, request: Request, producer: RunningProducer, body: SmallJson, if_match: IfMatch = None
) -> Response:
    """The projector submits the job at each tick, once, whichever projector is active. The jobs have the label
    `schedule`. The same schedule again changes nothing. With `If-Match`, of several requests that change the same
    version of a schedule one has success, and the others get 412; `*` only requires that there is one.
    """
    caller, read = caller_of(request), _read(ScheduleBody, body)
    caller.check_submission(read.type, read.payload)
    if caller.types and any(not _sees(caller, found) for _, found in await rules.schedules(producer, name)):
        raise Forbidden(f"there is another schedule {name!r}, of a job type that this key does not see: rename yours")
    wanted = _schedule(producer, name, read)
    rule = await rules.put_schedule(producer, wanted, None if if_match is None else _tags(if_match))
    return accepted(rule, _version(rule))


@router.put(
    "/schedules",
    response_model=SyncedOut,
    summary="Replace all schedules of some code",
    responses=openapi.problems(400, 401, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(
        SyncBody, example={"origin": "code", "items": [{"name": "report", "type": "report", "every": 300}]}
    ),
    dependencies=[Depends(no_query)],
)
async def sync_schedules(producer: RunningProducer, body: SmallJson) -> Response:
    """Creates and changes the schedules of `items`, and deletes the others that came from `origin`. A paused schedule
    stays paused. `jobtape schedules sync` sends the schedules of `@job`.
    """
    read = _read(SyncBody, body)
    wanted: dict[str, Schedule] = {}
    for n, each in enumerate(read.items):
        if each.name in wanted:
            faults = [(f"/items/{n}/name", f"two schedules are called {each.name!r}")]
            raise Problem("invalid-schedule", f"{faults[0][0]}: {faults[0][1]}", errors=faults)
        wanted[each.name] = _schedule(producer, each.name, each)
    done = await rules.sync_schedules(producer, read.origin, wanted.values(), dry_run=read.dry_run)
    return PydanticJSONResponse(asdict(done))


@router.get(
    "/schedules",
    response_model=SchedulesOut,
    summary="List the schedules",
    responses=openapi.problems(401, 422, 503),
)
async def list_schedules(request: Request, producer: RunningProducer, committed: Committed = False) -> Response:
    """With the next tick of each, unless it is paused or over."""
    caller = caller_of(request)
    found = [each for each in await rules.schedules(producer, committed=committed) if _sees(caller, each[1])]
    return PydanticJSONResponse({"items": await _shown(producer, found)})


@router.get(
    "/schedules/{name}",
    response_model=ScheduleOut,
    summary="Read a schedule",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def read_schedule(name: Name, request: Request, producer: RunningProducer) -> Response:
    """With its next tick. The `ETag` names its version, for `If-Match`; ticks do not change it."""
    found = await _existing(request, producer, name)
    return PydanticJSONResponse((await _shown(producer, [found]))[0], headers=_version(found[0]))


@router.get(
    "/schedules/{name}/ticks",
    response_model=TicksOut,
    summary="List a schedule's next ticks",
    responses=openapi.problems(401, 404, 422, 503),
)
async def list_ticks(
    name: Name,
    request: Request,
    producer: RunningProducer,
    n: Annotated[int, Query(ge=1, le=MOST_TICKS, description="How many ticks.")] = 10,
) -> Response:
    """Those after now, also of a paused schedule."""
    _, schedule = await _existing(request, producer, name)
    return PydanticJSONResponse({"items": [_tick(schedule, at) for at in islice(schedule.after(clock.now()), n)]})


@router.delete(
    "/schedules/{name}",
    response_model=RulesEndedOut,
    summary="Delete a schedule",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def delete_schedule(name: Name, request: Request, producer: RunningProducer) -> Response:
    """There are no more ticks. Jobs that were submitted go on."""
    await _existing(request, producer, name)
    return PydanticJSONResponse({"ended": await rules.delete_schedule(producer, name)})


@router.post(
    "/schedules/{name}/pause",
    status_code=202,
    response_model=JobOut,
    summary="Pause a schedule",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def pause_schedule(name: Name, request: Request, producer: RunningProducer) -> Response:
    """Nothing is submitted until it is resumed. Ticks of that time are missed."""
    return await _set_paused(request, producer, name, paused=True)


@router.post(
    "/schedules/{name}/resume",
    status_code=202,
    response_model=JobOut,
    summary="Resume a schedule",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def resume_schedule(name: Name, request: Request, producer: RunningProducer) -> Response:
    """The next tick is the first one after now."""
    return await _set_paused(request, producer, name, paused=False)


@router.post(
    "/schedules/{name}/trigger",
    status_code=202,
    response_model=JobOut,
    summary="Submit a schedule's job now",
    responses=openapi.problems(401, 404, 422, 503),
    dependencies=[Depends(no_query)],
)
async def trigger_schedule(name: Name, request: Request, producer: RunningProducer) -> Response:
    """A job besides those of the ticks."""
    _, schedule = await _existing(request, producer, name)
    return accepted(await producer.submit_order(schedule.order_for()))


@router.post(
    "/schedules/{name}/backfill",
    status_code=202,
    response_model=BackfilledOut,
    summary="Submit the jobs of past ticks",
    response_description="The jobs are on the tape.",
    responses=openapi.problems(400, 401, 404, 408, 413, 415, 422, 503),
    openapi_extra=openapi.body(BackfillBody, example={"since": "2030-01-01T00:00:00Z", "limit": 10}),
    dependencies=[Depends(no_query)],
)
async def backfill_schedule(name: Name, request: Request, producer: RunningProducer, body: SmallJson) -> Response:
    """One job for each tick that has none, oldest first. A tick has the same job whether it was submitted in time, late
    or here, so none runs twice.
    """
    _, schedule = await _existing(request, producer, name)
    wanted = _read(BackfillBody, body)
    now = clock.now()
    until = min(wanted.until or now, now)  # a tick to come is submitted in its time
    found = list(islice(schedule.after(wanted.since - timedelta(microseconds=1)), wanted.limit + 1))
    ticks = [tick for tick in found if tick < until]
    done = await rules.backfill(producer, schedule, ticks[: wanted.limit])
    return PydanticJSONResponse(
        {
            "submitted": [{"at": tick, "job": job.id} for tick, job in done.items() if job is not None],
            "existing": sum(job is None for job in done.values()),
            "next": ticks[wanted.limit] if len(ticks) > wanted.limit else None,
        },
        202,
    )


async def _existing(request: Request, producer: Producer, name: str) -> tuple[Job, Schedule]:
    found = await rules.schedules(producer, name)
    if not found or not _sees(caller_of(request), found[-1][1]):
        raise _not_found(name)
    return found[-1]


async def _set_paused(request: Request, producer: Producer, name: str, *, paused: bool) -> Response:
    if caller_of(request).types:
        await _existing(request, producer, name)
    rule = await rules.set_paused(producer, name, paused=paused)
    if rule is None:
        raise _not_found(name)
    return accepted(rule, _version(rule))


def _sees(caller: Caller, schedule: Schedule) -> bool:
    return caller.sees_order(schedule.order.type, schedule.order.payload)


def _not_found(name: str) -> Problem:
    return Problem("schedule-not-found", f"there is no schedule {name!r}: `GET /schedules` lists them")


def _version(rule: Job) -> dict[str, str]:
    return {"ETag": f'"{rule.id}"'}


def _tags(if_match: str) -> set[str]:
    """Return the tags of the header without their quotes. A weak tag matches nothing (RFC 9110, section 13.1.1)."""
    return {tag.strip().removeprefix('"').removesuffix('"') for tag in if_match.split(",")}


def _read(model: type[M], body: Any) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = [(pointer(fault["loc"]), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
        raise Problem("invalid-schedule", f"{faults[0][0] or 'the body'}: {faults[0][1]}", errors=faults) from None


def _schedule(producer: Producer, name: str, body: ScheduleBody) -> Schedule:
    wanted = body.model_dump(exclude={*_TICKS, "name"}, exclude_unset=True)
    order = producer.order(read_submission({"payload": {}} | wanted, Submission))
    return Schedule(name=name, order=order, **body.model_dump(include=set(_TICKS)))


def _tick(schedule: Schedule, at: datetime) -> dict[str, Any]:
    local = schedule.local(at)
    change = schedule.changes_clock(local.date())
    return {"at": at, "local": local, "clock_change": change, "job": schedule.job_id(at)}


async def _shown(producer: Producer, found: Sequence[tuple[Job, Schedule]]) -> list[dict[str, Any]]:
    latest = await rules.latest_jobs(producer, [schedule.name for _, schedule in found])
    return [_out(rule, schedule, latest.get(schedule.name)) for rule, schedule in found]


def _out(rule: Job, schedule: Schedule, latest: Job | None) -> dict[str, Any]:
    order = schedule.order
    following = None if schedule.paused else next(schedule.after(clock.now()), None)
    return {
        **schedule.model_dump(include=set(_TICKS)),
        "name": schedule.name,
        "id": rule.id,
        "origin": schedule.origin,
        **{name: getattr(order, name) for name in ("type", "queue", "labels")},
        "payload": without_secrets(order.payload),
        "next": following,
        "latest": None if latest is None else {name: getattr(latest, name) for name in LatestJobOut.model_fields},
    }
