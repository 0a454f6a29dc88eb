"""``GET /jobs`` with a search in payloads, results and errors."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from jobtape.schemas.cursor import cursor_of
from jobtape.schemas.filters.job_search import LONGEST_TEXT
from jobtape.view.jobs import job_search
from jobtape.view.store import Store
from tests.producer.http.test_read import fill
from tests.producer.running_api import Api, api, problem, without_broker
from tests.view.samples import NOON, submitted, succeeded

pytestmark = pytest.mark.anyio


@pytest.fixture
async def filled(view: Store, sqlite_url: str) -> AsyncIterator[Api]:
    """An API on a view with ten jobs, without a broker. The first one has succeeded."""
    orders = [
        submitted(n, at=NOON + timedelta(seconds=n), payload={"customer": {"id": n % 2}, "n": 2**53 + n, "näme": "a b"})
        for n in range(10)
    ]
    fill(view, *orders, succeeded(orders[0], {"total": "12.50"}))
    async with api(without_broker(sqlite_url), ready=False) as served:
        yield served


async def found(served: Api, **query: Any) -> tuple[list[int], int | None]:
    """Return the numbers of the jobs of all pages, and how many were scanned."""
    numbers: list[int] = []
    scanned = 0
    params = {name: str(value) for name, value in query.items()}
    while True:
        answer = await served.client.get("/jobs", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        numbers += [each["payload"]["n"] - 2**53 for each in page["items"]]
        scanned += page["scanned"] or 0
        if page["next"] is None:
            return numbers, scanned
        params["cursor"] = page["next"]


async def test_search_combines_with_filters_and_pages(filled: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await found(filled, **{"payload.customer.id": 1}) == ([9, 7, 5, 3, 1], 10)
    assert await found(filled, **{"payload.customer.id": 0, "state": "queued", "limit": 2}) == ([8, 6, 4, 2], 9)
    assert await found(filled, **{"payload.n": 2**53 + 3}) == ([3], 10)
    assert await found(filled, **{"payload.näme": "a b", "payload.customer.id": 0, "result.total": "12.50"}) == (
        [0],
        10,
    )
    assert await found(filled, error="x") == ([], 10)
    monkeypatch.setattr(job_search, "MOST_SCANNED", 3)
    assert await found(filled, **{"payload.customer.id": 1}) == ([9, 7, 5, 3, 1], 10)
    then = {"as_of": cursor_of(1, 3)}
    assert await found(filled, **then, **{"payload.customer.id": 1}) == ([3, 1], 0)
    assert await found(filled, **then, **{"result.total": "12.50"}) == ([], 0), "it had no result then"


@pytest.mark.parametrize(
    "query",
    [
        "payload=1",
        "payload.=1",
        "payload.a..b=1",
        "payload.a=1&payload.a=2",
        f"payload.a={'1' * (LONGEST_TEXT + 1)}",
        f"payload.{'a' * 201}=1",
        "payload.a=%00",
        "payloads.a=1",
        "&".join(f"payload.a{n}=1" for n in range(9)),
        f"error={'1' * (LONGEST_TEXT + 1)}",
    ],
)
async def test_bad_search_is_refused(filled: Api, query: str) -> None:
    details = problem(await filled.client.get(f"/jobs?{query}"), 422, "invalid-query")
    assert query.partition("=")[0][:20] in details["detail"] or "at most 8" in details["detail"]
