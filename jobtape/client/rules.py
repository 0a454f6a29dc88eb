"""What the asynchronous client does with rules: pauses, limits and schedules. See ``client.limits``, ``.schedules``."""

import builtins
from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from jobtape.client.errors import WrongAddress
from jobtape.client.http.answers import Answer, job_of
from jobtape.client.http.bodies import body_of, json_of
from jobtape.jobs import JobType
from jobtape.schemas.errors import faults_of, first_fault
from jobtape.schemas.job import Job, JobState
from jobtape.schemas.job_types.schedules import Times
from jobtape.schemas.queueing.gates import Limit
from jobtape.schemas.rules.schedule import Ticks
from jobtape.schemas.submission import Options

M = TypeVar("M", bound=BaseModel)


class Request(Protocol):
    """``Client.request``."""

    def __call__(self, method: str, path: str, **options: Any) -> Awaitable[Answer]: ...


class ChangedLimit(Limit):
    """A limit with other values than those of the job types. ``id``: the job that is the rule."""

    id: str


class LatestJob(BaseModel):
    """The newest job of a schedule."""

    id: str
    state: JobState
    submitted_at: datetime | None


class ScheduleInfo(Ticks):
    """A schedule in force. ``id``: the job that is the rule. ``origin``: the code that it came from, None for one that
    was made by hand. ``next``: its next tick; None while it is paused, and when it is over. ``latest``: its newest job.
    """

    id: str
    name: str
    type: str
    payload: Mapping[str, Any]
    queue: str
    labels: Mapping[str, str]
    origin: str | None
    next: datetime | None
    latest: LatestJob | None


class Tick(BaseModel):
    """A tick of a schedule, in UTC and in the schedule's zone. ``clock_change``: whether clocks are set forward or back
    there on that day. ``job``: the id of its job, which exists from the tick on.
    """

    at: datetime
    local: datetime
    clock_change: bool
    job: str


class TickJob(BaseModel):
    """A past tick, and the id of the job that was submitted for it."""

    at: datetime
    job: str


class Backfilled(BaseModel):
    """What a backfill did. ``submitted``: the jobs of ticks that had none. ``existing``: how many ticks had one.
    ``next``: the first tick that was left out because of the limit.
    """

    submitted: list[TickJob]
    existing: int
    next: datetime | None


class Limits:
    """The limits that were changed at run time. All methods raise ApiError."""

    def __init__(self, request: Request) -> None:
        self._request = request

    async def list(self) -> builtins.list[ChangedLimit]:
        """Return the limits that have other values than those of the job types."""
        return [read_answer(ChangedLimit, each) for each in (await self._request("GET", "/limits")).content["items"]]

    async def put(self, name: str, at_most: int, *, per: float | None = None, key: str = "") -> Job:
        """Give the limit ``name`` other values for all jobs from now on, and return the rule.

        ``per``: seconds, for a rate. ``key``: only for this key, as ``Job.waits_for`` shows it; by default for all.
        """
        body = {"at_most": at_most, "key": key} | ({} if per is None else {"per": per})
        return job_of((await self._request("PUT", _path("limits", name), **json_content(body))).content)

    async def delete(self, name: str, *, key: str = "") -> bool:
        """Let the limit have the values of the job types again. Return whether it had others."""
        answer = await self._request("DELETE", _path("limits", name), params={"key": key})
        return bool(answer.content["ended"])


class Schedules:
    """The schedules in force. All methods raise ApiError, and NotFound for a schedule that there is not."""

    def __init__(self, request: Request) -> None:
        self._request = request

    async def list(self) -> builtins.list[ScheduleInfo]:
        """Return all schedules, sorted by name."""
        return [read_answer(ScheduleInfo, each) for each in (await self._request("GET", "/schedules")).content["items"]]

    async def get(self, name: str) -> ScheduleInfo:
        """Return one schedule."""
        return read_answer(ScheduleInfo, (await self._request("GET", _path("schedules", name))).content)

    async def put(self, name: str, when: Times, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any) -> Job:
        """Submit a job with these arguments at each tick of ``Cron`` or ``Every``, and return the rule.

        Replaces the schedule ``name``; the same one again changes nothing. Raises ValueError for wrong times, and what
        ``Client.submit`` raises for wrong arguments.
        """
        return await self.put_with(Options(), name, when, job_type, *args, **kwargs)

    async def put_with(
        self, options: Options, name: str, when: Times, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any
    ) -> Job:
        """Put a schedule in force as ``put`` does, with ``options`` for its jobs: all but ``delay``, ``run_at`` and
        ``idempotency_key``.
        """
        return await self._put(name, None, _schedule_body(options, when, job_type, args, kwargs))

    async def replace(
        self, known: ScheduleInfo, when: Times, job_type: JobType[Any] | str, /, *args: Any, **kwargs: Any
    ) -> Job:
        """Put a schedule in force instead of ``known``, which ``get`` or ``list`` returned, and return the rule.

        Raises Conflict if it has been changed or deleted since then, and what ``put`` raises.
        """
        return await self._put(known.name, known.id, _schedule_body(Options(), when, job_type, args, kwargs))

    async def _put(self, name: str, replaces: str | None, body: Mapping[str, Any]) -> Job:
        options = json_content(body)
        if replaces is not None:
            options["headers"]["If-Match"] = f'"{replaces}"'
        return job_of((await self._request("PUT", _path("schedules", name), **options)).content)

    async def delete(self, name: str) -> None:
        """End a schedule. Jobs that it has submitted go on."""
        await self._request("DELETE", _path("schedules", name))

    async def pause(self, name: str) -> Job:
        """Let a schedule submit nothing until it is resumed, and return the rule."""
        return job_of((await self._request("POST", f"{_path('schedules', name)}/pause")).content)

    async def resume(self, name: str) -> Job:
        """Let a schedule go on with the first tick after now, and return the rule."""
        return job_of((await self._request("POST", f"{_path('schedules', name)}/resume")).content)

    async def trigger(self, name: str) -> Job:
        """Submit a job now besides those of the ticks, and return it.

        Not repeated after a lost connection: NoAnswer says that it may have been submitted.
        """
        answer = await self._request("POST", f"{_path('schedules', name)}/trigger", repeatable=False)
        return job_of(answer.content)

    async def ticks(self, name: str, n: int = 10) -> builtins.list[Tick]:
        """Return the next ``n`` ticks, 100 at most."""
        answer = await self._request("GET", f"{_path('schedules', name)}/ticks", params={"n": n})
        return [read_answer(Tick, each) for each in answer.content["items"]]

    async def backfill(
        self, name: str, since: datetime, until: datetime | None = None, *, limit: int = 100
    ) -> Backfilled:
        """Submit the jobs of ticks from ``since`` on and before ``until`` (default: now) that have none.

        At most ``limit`` ticks, 1000 at most, the oldest first. Repeating it submits nothing twice.
        """
        body = {"since": since, "limit": limit} | ({} if until is None else {"until": until})
        answer = await self._request("POST", f"{_path('schedules', name)}/backfill", **json_content(body))
        return read_answer(Backfilled, answer.content)


def target_path(queue: str | None, job_type: JobType[Any] | str | None) -> str:
    """Return the path of a queue or a job type, one of which is given. Raises ValueError."""
    if (queue is None) == (job_type is None):
        raise ValueError("say what: queue=... or job_type=...")
    if queue is not None:
        return _path("queues", queue)
    return _path("job-types", job_type.name if isinstance(job_type, JobType) else str(job_type))


def _schedule_body(
    options: Options, when: Times, job_type: JobType[Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    if when.name is not None or when.payload or when.labels:
        raise ValueError("name, payload and labels of Cron and Every are for @job: give them as arguments here")
    return body_of(options, job_type, args, kwargs) | _fields(when)


def _fields(times: Times) -> dict[str, Any]:
    """Return the fields of a schedule's body that say when. Raises ValueError."""
    return times.ticks().model_dump(mode="json", exclude_none=True, exclude={"paused"})


def _path(kind: str, name: str) -> str:
    return f"/{kind}/{quote(name, safe='')}"


def json_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a request with a JSON body."""
    return {"content": json_of(content), "headers": {"Content-Type": "application/json"}}


def read_answer(model: type[M], shown: Any) -> M:
    """Return what the API has shown as ``model``. Raises WrongAddress when it does not fit."""
    try:
        return model.model_validate(shown)
    except ValidationError as error:
        raise WrongAddress(
            f"the API returned a {model.__name__} that this client cannot read ({first_fault(faults_of(error))}): "
            "install the API's version of Jobtape here"
        ) from None
