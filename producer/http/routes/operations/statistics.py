"""``GET /stats``, ``GET /failures`` and ``GET /events/histogram``: numbers, without reading jobs or events."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field, model_validator

from jobtape.producer.http import openapi
from jobtape.producer.http.access import caller_of
from jobtape.producer.http.dependencies import RunningProducer
from jobtape.producer.http.query_parameters import Point, Time
from jobtape.producer.http.representation import PydanticJSONResponse
from jobtape.producer.monitoring.statistics import LONGEST_STEP, MOST_POINTS, Statistics, plan, time_of
from jobtape.schemas.execution.failure_group import FailureId
from jobtape.schemas.job import JobTypeName, WorkQueueName
from jobtape.view.jobs.statistics import FailureCount, JobCount, Sums
from jobtape.view.tallies import percentile

HOUR: Final = timedelta(hours=1)
MOST_BUCKETS: Final = 200
_LAST: Final = re.compile(r"(\d{1,17})-([0-9a-f]{12})")

router = APIRouter()


def _checked(text: str) -> str:
    if _LAST.fullmatch(text) is None:
        raise ValueError("not a cursor: take it from `next` of the page before")
    return text


Counts = Annotated[
    dict[str, int],
    Field(description="Numbers of jobs by state; a state without jobs is left out.", examples=[{"queued": 3}]),
]
Events = Annotated[
    dict[str, int],
    Field(description="Numbers of events by name; 0 is left out.", examples=[{"submitted": 10, "succeeded": 9}]),
]


class DurationsOut(BaseModel):
    """How long, in seconds. ``p50`` and ``p99`` are at most 19 % off; 0.001 also means less."""

    n: int = Field(description="How many were measured.")
    p50: float
    p99: float


class OldestOut(BaseModel):
    """A job that waits."""

    job: str
    since: datetime = Field(description="When it was due.")


class TypeOut(BaseModel):
    """A job type. ``jobs`` is of now; all else is of the range."""

    type: str
    jobs: Counts | None
    events: Events
    wait: DurationsOut | None = Field(description="From the time at which an attempt was due to its start.")
    run: DurationsOut | None = Field(description="How long attempts ran that succeeded or failed.")


class QueueOut(BaseModel):
    """A queue. ``jobs`` and ``oldest`` are of now; all else is of the range."""

    queue: str
    jobs: Counts | None
    events: Events
    wait: DurationsOut | None
    run: DurationsOut | None
    oldest: OldestOut | None = Field(description="The job that has been due longest and is neither held nor running.")


Series = list[float | None]


class SeriesOut(BaseModel):
    """One value for each step from ``since`` (inclusive) to ``until`` (exclusive). ``step`` is in seconds."""

    since: datetime
    until: datetime
    step: int
    points: int
    events: dict[str, list[int]] = Field(description="Numbers of events by name; a name without events is left out.")
    wait_p50: Series
    wait_p99: Series
    run_p50: Series
    run_p99: Series


class StatsOut(BaseModel):
    """Numbers of now and of a range of time."""

    at: datetime = Field(description="When this was read.")
    cursor: int = Field(description="Up to which the view had read the tape then.")
    jobs: Counts | None = Field(description="Null with `as_of`.")
    wait: DurationsOut | None = Field(description="As of a job type, of all of them.")
    run: DurationsOut | None
    types: list[TypeOut]
    queues: list[QueueOut]
    series: SeriesOut


class _RangeQuery(BaseModel, extra="forbid"):
    since: Time | None = Field(None, description="The beginning, RFC 3339.")
    until: Time | None = Field(None, description="The end, RFC 3339. Default: now.")
    type: list[JobTypeName] = Field(default_factory=list, max_length=50)
    queue: list[WorkQueueName] = Field(default_factory=list, max_length=50)

    @model_validator(mode="after")
    def _in_order(self) -> "_RangeQuery":
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("since must be earlier than until: swap them")
        return self


class StatsQuery(_RangeQuery):
    """The query parameters of ``GET /stats``."""

    step: int | None = Field(
        None,
        ge=60,
        le=LONGEST_STEP * 60,
        description="Seconds between two points of the series. It becomes more if minutes are not kept for the range, "
        f"or if there would be more than {MOST_POINTS} points. Default: so that there are about 100.",
    )
    as_of: Point | None = None


class FailuresQuery(_RangeQuery):
    """The query parameters of ``GET /failures``."""

    id: list[FailureId] = Field(default_factory=list, max_length=50, description="Only these groups.")
    limit: int = Field(100, ge=1, le=1000)
    cursor: Annotated[str, AfterValidator(_checked)] | None = Field(None, description="`next` of the page before.")


class FailureOut(BaseModel):
    """A group of failures: the same job type, reason, exception and place in the code."""

    id: str = Field(description="List its jobs with `GET /jobs?failure=`.")
    type: str = Field(description="The job type.")
    reason: str
    error: str = Field(description="The name of the exception's class.")
    where: str | None = Field(
        description="File and function of the innermost frame of your own code.", examples=["app/images.py in shrink"]
    )
    failed: int = Field(description="Runs that failed in the range.")
    retrying: int = Field(description="Attempts that failed in the range and were followed by another one.")
    first: datetime
    last: datetime
    jobs: int = Field(description="Jobs that are failed now, with this as their last error.")
    example: str | None = Field(
        description="The newest job with this error; when no job has it any more, the last one that had it. Null if "
        "retention has removed it."
    )
    message: str | None = Field(description="The message of that job's error, up to 500 characters.")
    line: int | None = Field(description="The line of that job's error, in the file of `where`.")


class FailurePage(BaseModel):
    """Groups by the time of their last failure, newest first. ``next`` is null on the last page."""

    items: list[FailureOut]
    next: str | None


class HistogramQuery(BaseModel, extra="forbid"):
    """The query parameters of ``GET /events/histogram``."""

    after: Point | None = Field(None, description="The beginning, a cursor or a time. Default: the first that is kept.")
    until: Point | None = Field(None, description="The end, a cursor or a time. Default: now.")
    buckets: int = Field(100, ge=2, le=MOST_BUCKETS, description="The largest number of buckets.")


class HistogramOut(BaseModel):
    """One number for each ``step`` seconds from ``since`` (inclusive) to ``until`` (exclusive)."""

    since: datetime
    until: datetime
    step: int
    counts: list[int] = Field(description="Events that changed a job.")
    failed: list[int] = Field(description="Those of them that are `failed`.")


@router.get(
    "/stats",
    tags=["operations"],
    response_model=StatsOut,
    summary="Get numbers of jobs and events",
    responses=openapi.problems(401, 410, 422, 503),
)
async def stats(query: Annotated[StatsQuery, Query()], request: Request, producer: RunningProducer) -> Response:
    """How many jobs there are now, and how many events there were, how long jobs waited and how long they ran in the
    last hour or the given range. The numbers are exact: they are folded with the events, and a rebuild finds the same.
    Minutes are kept for a day and hours for 35 days. The answer has the range and step that were used. With ``as_of``
    the range ends with the step in which that time is: events are counted by the minute or hour, so those of the rest
    of that step are counted too.
    """
    now = datetime.now(UTC)
    until = query.until or now
    caller = caller_of(request)
    query.type = caller.narrow(query.type)
    if query.as_of is not None:
        until = min(until, await producer.past.time(query.as_of))
    since = until - HOUR if query.since is None else query.since
    wanted = plan(since, until, time.time(), step=query.step, types=query.type, queues=query.queue)
    found = await producer.statistics.read(wanted)
    body = _stats(found, past=query.as_of is not None)
    if caller.types:  # the oldest job of a queue may be of another type
        body["queues"] = [{**queue, "oldest": None} for queue in body["queues"]]
    return PydanticJSONResponse(body)


@router.get(
    "/failures",
    tags=["operations"],
    response_model=FailurePage,
    summary="List failures by cause",
    responses=openapi.problems(401, 422, 503),
)
async def failures(query: Annotated[FailuresQuery, Query()], request: Request, producer: RunningProducer) -> Response:
    """Groups with a failure in the range, by default in the last 35 days. A group has one job type, reason, exception,
    and function of your own code, whatever the message and the line number.
    """
    now = datetime.now(UTC)
    since = datetime.fromtimestamp(0, UTC) if query.since is None else query.since
    query.type = caller_of(request).narrow(query.type)
    wanted = plan(since, query.until or now, time.time(), step=60, most=10**9, types=query.type, queues=query.queue)
    found = await producer.statistics.failures(wanted, query.limit + 1, _last(query.cursor), query.id)
    page = found[: query.limit]
    following = _cursor(page[-1]) if len(found) > query.limit else None
    return PydanticJSONResponse({"items": [asdict(group) for group in page], "next": following})


@router.get(
    "/events/histogram",
    tags=["live"],
    response_model=HistogramOut,
    summary="Count events by time",
    responses=openapi.problems(401, 410, 422, 503),
)
async def histogram(query: Annotated[HistogramQuery, Query()], request: Request, producer: RunningProducer) -> Response:
    """Events by their own time, in steps of whole minutes, or of hours where minutes are not kept. So there may be
    fewer buckets than asked for.
    """
    now = datetime.now(UTC)
    until = now if query.until is None else await producer.past.time(query.until)
    if query.after is None:
        since = await producer.statistics.first_time() or until - HOUR
    else:
        since = await producer.past.time(query.after)
    wanted = plan(since, until, time.time(), step=60, most=query.buckets, types=caller_of(request).narrow([]))
    found = await producer.statistics.events(wanted)
    columns = zip(*(found.get(number, (0, 0)) for number in range(wanted.points)), strict=True)
    counts, failed = (list(column) for column in columns)
    body = {
        "since": time_of(wanted.within.since),
        "until": time_of(wanted.within.until),
        "step": wanted.step * 60,
        "counts": counts,
        "failed": failed,
    }
    return PydanticJSONResponse(body)


def _stats(found: Statistics, *, past: bool) -> dict[str, Any]:
    """Return the fields of ``StatsOut``. ``past``: without what is of now."""
    types, queues, everything = _Numbers(), _Numbers(), _Numbers()
    for count in [] if past else found.jobs:
        types.jobs[count.type].append(count)
        queues.jobs[count.queue].append(count)
    for (kind, queue), sums in found.totals.items():
        types.sums[kind].append(sums)
        everything.sums[""].append(sums)
        if queue:
            queues.sums[queue].append(sums)
    return {
        "at": found.now.at,
        "cursor": found.now.cursor,
        "jobs": None if past else _states(found.jobs),
        **everything.durations(""),
        "types": [{"type": name, **types.numbers(name, past=past)} for name in types.names()],
        "queues": [
            {"queue": name, **queues.numbers(name, past=past), "oldest": None if past else _oldest(found, name)}
            for name in queues.names()
        ],
        "series": _series(found),
    }


class _Numbers:
    """What was read of job types or of queues, by name."""

    def __init__(self) -> None:
        self.jobs: defaultdict[str, list[JobCount]] = defaultdict(list)
        self.sums: defaultdict[str, list[Sums]] = defaultdict(list)

    def names(self) -> list[str]:
        return sorted(self.jobs.keys() | self.sums.keys())

    def numbers(self, name: str, *, past: bool) -> dict[str, Any]:
        events: Counter[str] = Counter()
        for sums in self.sums.get(name, []):
            events.update(sums.events)
        return {
            "jobs": None if past else _states(self.jobs.get(name, [])),
            "events": dict(sorted(events.items())),
            **self.durations(name),
        }

    def durations(self, name: str) -> dict[str, Any]:
        waits: Counter[int] = Counter()
        runs: Counter[int] = Counter()
        for sums in self.sums.get(name, []):
            waits.update(sums.waits)
            runs.update(sums.runs)
        return {"wait": _durations(waits), "run": _durations(runs)}


def _states(counts: Iterable[JobCount]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for count in counts:
        found[count.state] += count.n
    return dict(sorted(found.items()))


def _oldest(found: Statistics, queue: str) -> dict[str, Any] | None:
    job = found.now.oldest.get(queue)
    return None if job is None else {"job": job.id, "since": job.run_at}


def _durations(buckets: Mapping[int, int]) -> dict[str, Any] | None:
    n = sum(buckets.values())
    return {"n": n, "p50": _rounded(buckets, 0.5), "p99": _rounded(buckets, 0.99)} if n else None


def _rounded(buckets: Mapping[int, int], share: float) -> float | None:
    found = percentile(buckets, share)
    return None if found is None else float(f"{found:.3g}")


def _series(found: Statistics) -> dict[str, Any]:
    within, points = found.plan.within, found.plan.points
    empty = Sums()
    steps = [found.series.get(number, empty) for number in range(points)]
    names = sorted({name for step in steps for name in step.events})
    return {
        "since": time_of(within.since),
        "until": time_of(within.until),
        "step": found.plan.step * 60,
        "points": points,
        "events": {name: [step.events.get(name, 0) for step in steps] for name in names},
        **{f"wait_p{share}": [_rounded(step.waits, share / 100) for step in steps] for share in (50, 99)},
        **{f"run_p{share}": [_rounded(step.runs, share / 100) for step in steps] for share in (50, 99)},
    }


def _cursor(group: FailureCount) -> str:
    return f"{(group.last - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)}-{group.id}"


def _last(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None or (found := _LAST.fullmatch(cursor)) is None:
        return None
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(found[1])), found[2]
