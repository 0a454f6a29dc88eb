"""One job, its events, and lists of jobs."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from jobtape.schemas import events, ids
from jobtape.schemas.cursor import cursor_of
from jobtape.view.store import Store
from tests.producer.running_api import Api, api, without_broker
from tests.view.samples import NOON, folded, job_id, submitted, succeeded

pytestmark = pytest.mark.anyio

FIELDS = [
    "id",
    "type",
    "state",
    "payload",
    "payload_version",
    "result",
    "error",
    "failure",
    "reason",
    "duplicate_of",
    "progress",
    "queue",
    "lane",
    "labels",
    "ordering_key",
    "waits_for",
    "holds_key",
    "run",
    "attempt",
    "max_attempts",
    "submitted_at",
    "run_at",
    "started_at",
    "finished_at",
    "correlation_id",
    "reply_to",
    "flow",
    "node",
    "item",
    "follow_up_jobs",
    "signals",
    "imported",
    "cursor",
]


def fill(store: Store, *tape: events.JobEvent) -> None:
    """Fold the tape into the store, as a projector would."""
    store.create_checkpoint()
    assert store.take_lease("test", 60)
    assert store.commit("test", (1, None), folded(tape), 60)


@pytest.fixture
async def filled(store: Store, database_url: str) -> AsyncIterator[Api]:
    """An API on a view with two jobs, without a broker."""
    order = submitted(1, labels={"customer": "42", "a:b": "c"}, correlation_id="c1")
    fill(store, order, succeeded(order, {"sum": 2**62}), succeeded(order, "late"), submitted(2))
    async with api(without_broker(database_url), ready=False) as served:
        yield served


async def test_job_fields(filled: Api) -> None:
    answer = await filled.client.get(f"/jobs/{job_id(1)}")
    assert answer.headers["content-type"] == "application/json"
    job = answer.json()
    assert list(job) == FIELDS
    assert (job["state"], job["result"], job["correlation_id"]) == ("succeeded", {"sum": 2**62}, "c1")
    assert job["labels"] == {"customer": "42", "a:b": "c"}
    assert job["submitted_at"] == "2026-03-01T12:00:00Z"
    assert job["cursor"] == cursor_of(1, 1)
    assert answer.headers["etag"] == f'"{job["cursor"]}"'


async def test_id_in_capitals(filled: Api) -> None:
    assert (await filled.client.get(f"/jobs/{job_id(1).upper()}")).json()["id"] == job_id(1)


async def test_if_none_match(filled: Api) -> None:
    url = f"/jobs/{job_id(1)}"
    etag = (await filled.client.get(url)).headers["etag"]
    for if_none_match, status in (
        (etag, 304),
        (f"W/{etag}", 304),
        (f'"1", {etag}', 304),
        (f'"1",W/{etag} , "2"', 304),
        ("*", 304),
        ('"1"', 200),
        ("", 200),
        ("nonsense", 200),
        (f'"{etag}"', 200),
    ):
        answer = await filled.client.get(url, headers={"If-None-Match": if_none_match})
        assert (answer.status_code, answer.headers["etag"]) == (status, etag), if_none_match
        assert bool(answer.content) == (status == 200)


async def test_job_events(filled: Api) -> None:
    url = f"/jobs/{job_id(1)}/events"
    page = (await filled.client.get(url)).json()
    assert page["next"] is None
    assert [(event["type"], event["accepted"]) for event in page["items"]] == [
        ("jobtape.job.submitted", True),
        ("jobtape.job.succeeded", True),
        ("jobtape.job.succeeded", False),
    ]
    assert [event["cursor"] for event in page["items"]] == [cursor_of(1, n) for n in range(3)]
    assert page["items"][1]["data"]["result"] == {"sum": 2**62}
    for event in page["items"]:
        assert event["specversion"] == "1.0"
        events.parse({name: value for name, value in event.items() if name not in ("cursor", "accepted")})


async def test_job_events_in_pages(filled: Api) -> None:
    url = f"/jobs/{job_id(1)}/events"
    seen: list[int] = []
    after = 0
    while after is not None:
        page = (await filled.client.get(url, params={"after": after, "limit": 1})).json()
        assert len(page["items"]) == 1
        seen += [event["cursor"] for event in page["items"]]
        after = page["next"]
    assert seen == [cursor_of(1, n) for n in range(3)]


@pytest.fixture(scope="module")
async def many(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An API on a view with twelve jobs, one a minute, without a broker.

    Jobs of even minutes have the type ``even`` and the queue ``two``. Every third job has succeeded.
    """
    url = f"sqlite:///{tmp_path_factory.mktemp('view')}/view.db"
    store = Store(url)
    store.migrate()
    tape: list[events.JobEvent] = []
    for n in range(12):
        even = n % 2 == 0
        order = submitted(
            0,
            NOON + timedelta(minutes=n),
            type="even" if even else "odd",
            queue="two" if even else "one",
            labels={"third": str(n % 3), "all": "yes"},
        )
        tape += [order, succeeded(order)] if n % 3 == 0 else [order]
    fill(store, *tape)
    async with api(without_broker(url), ready=False) as served:
        yield served
    store.close()


async def numbers(served: Api, query: str) -> list[int]:
    """The minutes of the jobs that a query finds."""
    answer = await served.client.get(f"/jobs?{query}")
    assert answer.status_code == 200, answer.text
    times = [ids.time_of(job["id"]) for job in answer.json()["items"]]
    return [(time - NOON) // timedelta(minutes=1) for time in times if time is not None]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("type=even", [10, 8, 6, 4, 2, 0]),
        ("type=even&type=odd&limit=2", [11, 10]),
        ("type=other", []),
        ("state=succeeded", [9, 6, 3, 0]),
        ("state=succeeded&state=queued&limit=3", [11, 10, 9]),
        ("queue=one&state=succeeded", [9, 3]),
        ("label=third:1", [10, 7, 4, 1]),
        ("label=third:1&label=all:yes&type=odd", [7, 1]),
        ("label=third:1&label=third:2", []),
        ("since=2026-03-01T12:10:00Z", [11, 10]),
        ("until=2026-03-01T12:02:00Z", [1, 0]),
        ("since=2026-03-01T12:02:00Z&until=2026-03-01T12:04:00Z", [3, 2]),
        ("since=2026-03-01T14:10:00%2B02:00", [11, 10]),
        ("since=2026-03-01t12:10:00.000z", [11, 10]),
        ("since=0001-01-01T00:00:00Z&limit=1", [11]),
        ("until=9999-12-31T23:59:59Z&limit=1", [11]),
    ],
)
async def test_list_filters(many: Api, query: str, found: list[int]) -> None:
    assert await numbers(many, query) == found


async def test_list_pages(many: Api) -> None:
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 4, "label": "all:yes"}
    pages = 0
    while True:
        page = (await many.client.get("/jobs", params=query)).json()
        seen += [job["id"] for job in page["items"]]
        pages += 1
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert pages == 3
    assert len(seen) == len(set(seen)) == 12
    assert seen == sorted(seen, reverse=True)


async def test_large_payload(projected: Api) -> None:
    data = ["ü" * 1000] * 200
    answer = await projected.client.post("/jobs", json={"type": "keep", "payload": {"data": data}})
    assert answer.status_code == 202
    url = f"/jobs/{answer.json()['id']}"
    assert (await projected.client.get(url)).json()["payload"]["data"] == data
    (event,) = (await projected.client.get(f"{url}/events")).json()["items"]
    assert event["data"]["order"]["payload"]["data"] == data
