"""``GET /stats``, ``GET /failures``, ``GET /events/histogram`` and the filter ``failure``."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from jobtape.producer.monitoring.statistics import MOST_POINTS, plan
from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.events import Failed, FailedData, JobEvent, Retrying, RetryingData, Started, StartedData, Submitted
from jobtape.schemas.job import ErrorInfo
from jobtape.view.store import Store
from jobtape.view.tallies import HOURS_KEPT, MINUTES_KEPT
from tests.producer.http.test_read import fill
from tests.producer.running_api import Api, api, problem, without_broker
from tests.view.samples import SOURCE, submitted, succeeded

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)
TRACE = 'Traceback (most recent call last):\n  File "/srv/app/images.py", line 12, in shrink\n'


def failed(of: Submitted, after: timedelta, error: str = "ValueError") -> Failed:
    info = ErrorInfo(type=error, message="m", traceback=TRACE)
    data = FailedData(
        job_type=of.data.job_type,
        run=1,
        attempt=1,
        error=info,
        reason="error",
        started_at=of.time + after,
        duration=2.0,
    )
    return Failed(id=f"{of.subject}/failed", source=SOURCE, subject=of.subject, time=of.time + after, data=data)


def retrying(of: Submitted) -> Retrying:
    data = RetryingData(
        job_type=of.data.job_type,
        run=1,
        attempt=1,
        execution="e",
        error=ErrorInfo(type="ValueError", message="x", traceback=TRACE.replace("12", "14")),
        reason="error",
        next_at=NOW + timedelta(days=1),
    )
    return Retrying(id=f"{of.subject}/r", source=SOURCE, subject=of.subject, time=of.time + MINUTE, data=data)


def started(of: Submitted, after: timedelta) -> Started:
    data = StartedData(job_type=of.data.job_type, run=1, attempt=1, execution="e", worker="w")
    return Started(id=f"{of.subject}/s", source=SOURCE, subject=of.subject, time=of.time + after, data=data)


OLD = submitted(1, NOW - timedelta(days=5))
DONE, BAD, OTHER, AGAIN, RUNS, FIRST, NEXT = (
    submitted(n, NOW - 40 * MINUTE + n * MINUTE, type=kind, queue=queue)
    for n, (kind, queue) in enumerate(
        [
            ("add", "main"),
            ("resize", "slow"),
            ("resize", "slow"),
            ("resize", "slow"),
            ("add", "main"),
            ("add", "main"),
            ("add", "main"),
        ],
        start=2,
    )
)
TAPE: list[JobEvent] = [
    *(OLD, failed(OLD, MINUTE), DONE, succeeded(DONE), BAD, failed(BAD, 3 * MINUTE), OTHER),
    *(failed(OTHER, MINUTE, "KeyError"), AGAIN, retrying(AGAIN), RUNS, started(RUNS, 2 * MINUTE), FIRST, NEXT),
]


@pytest.fixture
async def filled(store: Store, database_url: str) -> AsyncIterator[Api]:
    """An API on a view with jobs of this hour and of five days ago, without a broker."""
    fill(store, *TAPE)
    async with api(without_broker(database_url), ready=False) as served:
        yield served


async def get(served: Api, path: str, **query: Any) -> Any:
    answer = await served.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_stats_of_the_last_hour(filled: Api) -> None:
    found = await get(filled, "/stats")
    assert found["jobs"] == {"failed": 3, "queued": 2, "retrying": 1, "running": 1, "succeeded": 1}
    assert found["cursor"] == cursor_of(1, len(TAPE) - 1)
    add, resize = found["types"]
    assert (add["type"], resize["type"]) == ("add", "resize")
    assert add["events"] == {"started": 1, "submitted": 4, "succeeded": 1}
    assert resize["events"] == {"failed": 2, "retrying": 1, "submitted": 3}
    assert add["wait"]["n"] == 2
    assert add["wait"]["p99"] == pytest.approx(120, rel=0.19)
    assert resize["run"] == {"n": 2, "p50": pytest.approx(2.0, rel=0.19), "p99": pytest.approx(2.0, rel=0.19)}
    assert (found["wait"]["n"], found["run"]["n"]) == tuple(
        sum((each[name] or {"n": 0})["n"] for each in found["types"]) for name in ("wait", "run")
    )
    main, slow = found["queues"]
    assert main["oldest"] == {"job": FIRST.subject, "since": FIRST.time.isoformat().replace("+00:00", "Z")}
    assert slow["oldest"] is None, "the job that is tried again is not due yet"
    assert slow["jobs"] == {"failed": 2, "retrying": 1}
    series = found["series"]
    assert series["step"] == 60
    assert 60 <= series["points"] <= 61
    assert {name: sum(numbers) for name, numbers in series["events"].items()} == Counter(
        event.name for event in TAPE if event.subject != OLD.subject
    )
    begin = datetime.fromisoformat(series["since"])
    assert series["events"]["submitted"][(DONE.time - begin) // MINUTE] == 1
    assert {len(series[name]) for name in ("wait_p50", "wait_p99", "run_p50", "run_p99")} == {series["points"]}


async def test_stats_of_one_type_and_of_old_hours(filled: Api) -> None:
    since = (NOW - timedelta(days=6)).isoformat()
    found = await get(filled, "/stats", since=since, step=60, type="resize", queue="slow")
    assert found["jobs"] == {"failed": 2, "retrying": 1}
    assert [each["type"] for each in found["types"]] == ["resize"]
    assert found["series"]["step"] == 3600, "minutes of that time may not be kept"
    found = await get(filled, "/stats", since=since)
    assert found["series"]["points"] <= 121
    assert sum(found["series"]["events"]["failed"]) == 3


async def test_stats_of_the_past_end_there_and_have_no_numbers_of_now(filled: Api) -> None:
    found = await get(filled, "/stats", as_of=cursor_of(1, TAPE.index(BAD)))
    assert found["jobs"] is None
    assert {each["jobs"] for each in found["types"]} == {each["oldest"] for each in found["queues"]} == {None}
    assert datetime.fromisoformat(found["series"]["until"]) - BAD.time <= MINUTE
    assert sum(found["series"]["events"]["submitted"]) == 2


async def test_failures_are_grouped_by_cause(filled: Api) -> None:
    everything = (await get(filled, "/failures"))["items"]
    assert [(each["type"], each["error"], each["failed"], each["retrying"], each["jobs"]) for each in everything] == [
        ("resize", "ValueError", 1, 1, 1),
        ("resize", "KeyError", 1, 0, 1),
        ("add", "ValueError", 1, 0, 1),
    ]
    values, keys, _ = everything
    assert values["where"] == "app/images.py in shrink"
    assert values["example"] == AGAIN.subject
    assert [(each["message"], each["line"]) for each in (values, keys)] == [("x", 14), ("m", 12)]
    assert datetime.fromisoformat(values["first"]) == BAD.time + 3 * MINUTE
    assert datetime.fromisoformat(values["last"]) == AGAIN.time + MINUTE
    assert (await get(filled, "/failures", id=[keys["id"]]))["items"] == [keys]
    recent = await get(filled, "/failures", since=(NOW - timedelta(hours=1)).isoformat(), type="resize")
    assert recent == {"items": [values, keys], "next": None}
    paged, cursor = [], None
    while True:
        page = await get(filled, "/failures", limit=1, **({} if cursor is None else {"cursor": cursor}))
        paged += page["items"]
        if (cursor := page["next"]) is None:
            break
    assert paged == everything


async def test_failure_that_was_mended_by_retries_has_its_message(store: Store, database_url: str) -> None:
    second = succeeded(RUNS).data.model_copy(update={"attempt": 2})
    fill(store, RUNS, retrying(RUNS), succeeded(RUNS).model_copy(update={"data": second}))
    async with api(without_broker(database_url), ready=False) as served:
        (found,) = (await get(served, "/failures"))["items"]
    assert (found["retrying"], found["jobs"]) == (1, 0)
    assert (found["example"], found["message"], found["line"]) == (RUNS.subject, "x", 14)


async def test_jobs_of_a_failure(filled: Api) -> None:
    values = (await get(filled, "/failures"))["items"][0]
    jobs = (await get(filled, "/jobs", failure=values["id"]))["items"]
    assert [job["id"] for job in jobs] == [AGAIN.subject, BAD.subject]
    assert {job["failure"] for job in jobs} == {values["id"]}
    still = await get(filled, "/jobs", failure=values["id"], state="failed")
    assert [job["id"] for job in still["items"]] == [BAD.subject]
    before = {"failure": values["id"], "as_of": cursor_of(1, TAPE.index(OTHER))}
    assert [job["id"] for job in (await get(filled, "/jobs", **before))["items"]] == [BAD.subject]


async def test_histogram_counts_accepted_events(filled: Api) -> None:
    found = await get(filled, "/events/histogram")
    assert found["step"] == 7200
    assert (sum(found["counts"]), sum(found["failed"])) == (len(TAPE), 3)
    assert datetime.fromisoformat(found["since"]) <= OLD.time
    found = await get(filled, "/events/histogram", after=(NOW - 60 * MINUTE).isoformat(), buckets=200)
    assert found["step"] == 60
    assert 60 <= len(found["counts"]) <= 130  # minutes: the tape was made when the tests began
    assert sum(found["counts"]) == len(TAPE) - 2
    found = await get(filled, "/events/histogram", after=cursor_of(1, TAPE.index(DONE)), buckets=2)
    assert len(found["counts"]) <= 2
    assert sum(found["counts"]) == len(TAPE) - 2


async def test_empty_view(store: Store, database_url: str) -> None:
    async with api(without_broker(database_url), ready=False) as served:
        found = await get(served, "/stats")
        assert (found["jobs"], found["types"], found["queues"], found["series"]["events"]) == ({}, [], [], {})
        assert sum((await get(served, "/events/histogram"))["counts"]) == 0
        assert await get(served, "/failures") == {"items": [], "next": None}


@pytest.mark.parametrize(
    "path",
    [
        "/stats?step=59",
        "/stats?since=2030-01-02T00:00:00Z&until=2030-01-01T00:00:00Z",
        "/stats?x=1",
        "/failures?cursor=5",
        "/failures?since=yesterday",
        "/events/histogram?buckets=201",
        "/jobs?failure=x",
    ],
)
async def test_invalid_query(filled: Api, path: str) -> None:
    problem(await filled.client.get(path), 422, "invalid-query")


@pytest.mark.parametrize("step", [None, 60, 61, 3600, 86400])
def test_plan_contains_the_range_in_few_steps(step: int | None) -> None:
    now = NOW.timestamp()
    ages = (0.0, 3600.0, 86400.0, MINUTES_KEPT, 10 * 86400.0, HOURS_KEPT, 1e9)
    spans = (0.5, 60.0, 3600.0, 86400.0, 30 * 86400.0, 1e9)
    for age, span, most in product(ages, spans, (2, 7, 200, MOST_POINTS)):
        until = datetime.fromtimestamp(now - age, UTC)
        since = until - timedelta(seconds=span)
        found = plan(since, until, now, step=step, most=most)
        assert 1 <= found.points <= most
        assert found.within.since % found.step == found.within.until % found.step == 0
        kept = max(since.timestamp(), now - HOURS_KEPT)
        assert found.within.since * 60 <= kept or age > HOURS_KEPT
        assert found.within.until * 60 >= until.timestamp()
        if since.timestamp() < now - MINUTES_KEPT:
            assert found.step % 60 == 0
