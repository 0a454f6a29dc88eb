"""``?as_of=``: the jobs as they were at a point, or why that is unknown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from jobtape.schemas.cursor import cursor_of
from jobtape.settings import Settings
from jobtape.view.store import FoldedBatch, Gap, Store
from tests.consumer.installation import Rig
from tests.producer.running_api import Api, api, problem
from tests.view.samples import NOON, folded, job_id, submitted, succeeded
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def good(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_past_response_is_repeated(projected: Api) -> None:
    order = {"type": "add", "payload": {"x": 1}, "delay": 20, "labels": {"tenant": "a"}}
    url = f"/jobs/{(await projected.client.post('/jobs', json=order)).json()['id']}"
    before = await good(await projected.client.get(url))
    listed = await good(await projected.client.get("/jobs?label=tenant:a"))
    between = datetime.now(UTC)
    assert (await projected.client.post(f"{url}/cancel")).status_code == 202

    async def cancelled() -> Any:
        job = (await projected.client.get(url)).json()
        return job if job["state"] == "cancelled" else None

    after = await eventually(cancelled, what="the cancellation is folded")
    for moment, job in ((before["cursor"], before), (after["cursor"], after), (between.isoformat(), before)):
        answer = await projected.client.get(url, params={"as_of": moment})
        assert await good(answer) == job
        assert answer.headers["etag"] == f'"{job["cursor"]}"'
        assert answer.headers["jobtape-as-of"] == str(job["cursor"])
    query = {"as_of": between.isoformat(), "state": "scheduled", "label": "tenant:a"}
    assert await good(await projected.client.get("/jobs", params=query)) == listed
    assert (await good(await projected.client.get("/jobs", params=query | {"as_of": after["cursor"]})))["items"] == []
    now = await projected.client.get(url, params={"as_of": datetime.now(UTC).isoformat()})
    assert await good(now) == after
    same = await projected.client.get(
        url, params={"as_of": after["cursor"]}, headers={"If-None-Match": now.headers["etag"]}
    )
    assert (same.status_code, same.content) == (304, b"")


async def test_job_is_missing_before_its_submission(projected: Api) -> None:
    first, second = await projected.submit(x=1), await projected.submit(x=2)
    cursor = (await good(await projected.client.get(f"/jobs/{first['id']}")))["cursor"]
    await good(await projected.client.get(f"/jobs/{second['id']}"))
    details = problem(await projected.client.get(f"/jobs/{second['id']}?as_of={cursor}"), 404, "job-not-found")
    assert f"at cursor {cursor} there was no job" in details["detail"]
    listed = await good(await projected.client.get(f"/jobs?as_of={cursor}"))
    assert [job["id"] for job in listed["items"]] == [first["id"]]
    assert (await good(await projected.client.get("/jobs?as_of=0")))["items"] == []


async def test_recent_time_waits_for_the_view(settings: Settings, rig: Rig, view: Store) -> None:
    async with api(settings.model_copy(update={"read_timeout": 0.5})) as served:
        job = await served.submit()
        query = {"as_of": datetime.now(UTC).isoformat()}
        problem(await served.client.get("/jobs", params=query), 503, "view-behind")
    async with api(settings) as served, rig.projector(view):
        await good(await served.client.get(f"/jobs/{job['id']}"))
        assert [item["id"] for item in (await good(await served.client.get("/jobs", params=query)))["items"]] == [
            job["id"]
        ]


@pytest.fixture
async def torn(settings: Settings, rig: Rig, view: Store) -> Any:
    """Three jobs before a gap, the last event at offset 3, and one job after it."""
    view.create_checkpoint()
    assert view.take_lease("test", 60)
    order = submitted(1)
    assert view.commit("test", (1, None), folded([order, submitted(2), submitted(3), succeeded(order, 7)]), 60)
    assert view.report_gap("test", Gap("tape-replaced", "made again"))
    view.accept_gap()
    assert view.commit("test", (2, None), FoldedBatch(0, ""), 60)
    batch = folded([submitted(4, NOON + timedelta(minutes=1))], first=1, epoch=2)
    assert view.commit("test", (2, 0), batch, 60)
    async with api(settings) as served:
        yield served


async def test_point_before_horizon_is_gone(torn: Api) -> None:
    horizon = cursor_of(1, 4)
    for moment in (cursor_of(1, 3), 0, "2026-03-01T12:00:01Z", "2026-03-01T12:00:30Z", "2026-03-01T11:00:00Z"):
        for path in (f"/jobs/{job_id(1)}", "/jobs"):
            details = problem(await torn.client.get(path, params={"as_of": moment}), 410, "history-gone")
            assert f"complete from cursor {horizon} on" in details["detail"]
    for cursor, found in ((horizon, [3, 2, 1]), (cursor_of(2, 0), [3, 2, 1]), (cursor_of(2, 1), [4, 3, 2, 1])):
        page = await good(await torn.client.get("/jobs", params={"as_of": cursor}))
        ids = [job_id(n, NOON + timedelta(minutes=n == 4)) for n in found]
        assert [job["id"] for job in page["items"]] == ids
    job = await good(await torn.client.get(f"/jobs/{job_id(1)}", params={"as_of": horizon}))
    assert (job["state"], job["result"], job["payload"]) == ("succeeded", 7, {"x": 1})


async def test_positions_begin_where_history_is_complete(torn: Api, view: Store) -> None:
    page = await good(await torn.client.get("/events/positions"))
    assert page == {"items": [{"cursor": cursor_of(2, 1), "time": "2026-03-01T12:01:00Z"}]}
    every = [position.cursor for position in view.past.positions(500, 0)]
    assert every == [*(cursor_of(1, n) for n in range(4)), cursor_of(2, 1)], (
        "the numbers between two logs are no events"
    )
    for limit in ("1", "501", "many"):
        problem(await torn.client.get(f"/events/positions?limit={limit}"), 422, "invalid-query")


async def test_invalid_points_are_refused(torn: Api) -> None:
    for moment, kind, detail in (
        (str(cursor_of(2, 2)), "cursor-not-reached", f"read the tape up to cursor {cursor_of(2, 1)}"),
        ("2999-01-01T00:00:00Z", "cursor-not-reached", "in the future"),
        ("9" * 30, "invalid-query", "a cursor is at most"),
        ("yesterday", "invalid-query", "neither a cursor nor a time"),
        ("2026-03-01T12:00:00", "invalid-query", "neither a cursor nor a time"),
        ("-1", "invalid-query", "neither a cursor nor a time"),
        ("", "invalid-query", "neither a cursor nor a time"),
    ):
        for path in (f"/jobs/{job_id(1)}", "/jobs"):
            assert detail in problem(await torn.client.get(path, params={"as_of": moment}), 422, kind)["detail"]


async def test_commands_refuse_as_of(torn: Api) -> None:
    problem(await torn.client.post(f"/jobs/{job_id(1)}/cancel?as_of=1"), 422, "invalid-query")
    problem(await torn.client.post("/redrives", json={"as_of": "1"}), 422, "invalid-filter")
