"""Results that a flow hands on by reference: a projector, a worker and an API that it reads them from."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import pytest

from jobtape import Context, Results, job, step
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.producer.running_api import Api, api, problem, serve
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

ROOM: Final = 20_000
"""Bytes of a payload in these tests."""


@job("text")
def text(n: int, ctx: Context, size: int = 1000) -> str:
    if n == 13 and ctx.run == 1:
        raise ValueError("unlucky")
    return f"{n}:".ljust(size, "x")


@job("join")
async def join(parts: Results[str | None], sep: str = ",") -> str:
    found = [part.partition(":")[0] if part else "-" async for part in parts]
    assert len(found) == len(parts)
    return sep.join(found)


@job("join.sync")
def join_sync(parts: Results[str]) -> str:
    return ",".join(part.partition(":")[0] for part in parts)


@job("join.isolated", isolate=True)
def join_isolated(parts: Results[str]) -> str:
    return ",".join(part.partition(":")[0] for part in parts)


@job("join.list")
def join_list(parts: list[str]) -> int:
    return len(parts)


@job("sum.up")
async def sum_up(parts: Results[dict[str, int]]) -> int:
    return sum([each["n"] async for each in parts])


@job("then.join")
async def then_join(results: Results[str], n: int) -> str:
    return f"{n}:" + ",".join([part.partition(":")[0] async for part in results])


@job("start")
async def start(n: int, size: int, ctx: Context) -> Any:
    return ctx.then(then_join, [step(text, each, size) for each in range(n)], n=n)


TYPES: Final = (text, join, join_sync, join_isolated, join_list, sum_up, then_join, start)


@pytest.fixture
async def at_work(settings: Settings, rig: Rig, view: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    async with (
        api(settings, *TYPES) as served,
        serve(served.app, lifespan="off") as port,
        rig.projector(view, max_payload=ROOM),
    ):
        monkeypatch.setenv("JOBTAPE_URL", f"http://127.0.0.1:{port}")
        async with rig.worker(*TYPES, modules=[__name__]):
            yield served


async def ended(served: Api, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = await served.client.post(path, json=body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = (await served.client.get(answer.headers["location"], headers={"Prefer": "wait=30"})).json()
    assert found["finished_at"] is not None, found
    return found


async def run_again(served: Api, old: dict[str, Any]) -> dict[str, Any]:
    """Redrive a job, wait for the end of its next run, and return it."""
    assert (await served.client.post(f"/jobs/{old['id']}/redrive")).status_code == 202
    found: dict[str, Any] = {}

    async def ended_again() -> bool:
        found.update((await served.client.get(f"/jobs/{old['id']}")).json())
        return found["run"] > old["run"] and found["finished_at"] is not None

    # It pauses between two reads: a read in this process may not give the event loop to the projector.
    await eventually(ended_again)
    return found


def fan(n: int, job_type: str = "join", **more: Any) -> dict[str, Any]:
    each = {"type": "text", "map": {"$input": "/numbers"}, "payload": {"n": {"$item": ""}}}
    last = {"type": job_type, "payload": {"parts": {"$from": "each"}}}
    return {"input": {"numbers": list(range(n))}, "nodes": {"each": each, "last": last | more}}


@pytest.mark.parametrize("job_type", ["join", "join.sync", "join.isolated"])
async def test_results_that_do_not_fit_are_read_from_the_api(
    at_work: Api, rig: Rig, view: Store, job_type: str
) -> None:
    numbers = [n for n in range(60) if n != 13]
    body = fan(60, job_type)
    body["input"]["numbers"] = numbers
    flow = await ended(at_work, "/flows", body)
    assert flow["result"] == {"last": ",".join(map(str, numbers))}, flow
    (last,) = (await at_work.client.get("/jobs", params={"flow": flow["id"], "node": "last"})).json()["items"]
    assert last["payload"]["parts"].keys() == {"$results"}
    report = await Checker(rig.url, rig.topology).check(view)
    assert not report.problems, str(report)


async def test_results_that_fit_are_in_the_payload(at_work: Api) -> None:
    flow = await ended(at_work, "/flows", fan(3))
    assert flow["result"] == {"last": "0,1,2"}
    (last,) = (await at_work.client.get("/jobs", params={"flow": flow["id"], "node": "last"})).json()["items"]
    assert [part[:2] for part in last["payload"]["parts"]] == ["0:", "1:", "2:"]


async def test_item_without_a_result_is_none(at_work: Api) -> None:
    flow = await ended(at_work, "/flows", fan(40, on="done"))
    assert flow["result"] == {"last": ",".join("-" if n == 13 else str(n) for n in range(40))}


async def test_results_are_those_at_the_time_of_the_fan_in(at_work: Api) -> None:
    """Whatever is redriven later, a later run of the fan-in reads what the first one has read."""
    flow = await ended(at_work, "/flows", fan(40, on="done"))
    parameters = {"flow": flow["id"], "node": "last"}
    (last,) = (await at_work.client.get("/jobs", params=parameters)).json()["items"]
    failed = (await at_work.client.get("/jobs", params={"flow": flow["id"], "state": "failed"})).json()["items"][0]
    as_of = last["payload"]["parts"]["$results"]["as_of"]
    assert (await run_again(at_work, failed))["state"] == "succeeded"
    query = {"nodes": "each", "limit": "5", "after": "10"}
    path = f"/jobs/{flow['id']}/results"
    then = (await at_work.client.get(path, params=query | {"as_of": str(as_of)})).json()
    assert [each["state"] for each in then["items"]] == ["succeeded"] * 3 + ["failed", "succeeded"]
    assert (then["items"][3]["item"], then["items"][3]["job"], then["next"]) == (13, failed["id"], 15)
    assert (await at_work.client.get(path, params=query | {"after": "39"})).json()["next"] is None
    assert (await run_again(at_work, last))["result"] == last["result"]


async def test_follow_ups_hand_their_results_on_by_reference(at_work: Api) -> None:
    for size in (100, 5000):
        done = await ended(at_work, "/jobs", {"type": "start", "payload": {"n": 12, "size": size}})
        assert done["result"] == "12:" + ",".join(map(str, range(12))), done["error"]
    nodes = {str(n): {"type": "text", "payload": {"n": n, "size": 15_000}} for n in range(3)}
    last = {"type": "join", "payload": {"parts": [{"$from": str(n)} for n in range(3)], "sep": "+"}}
    flow = await ended(at_work, "/flows", {"nodes": nodes | {"last": last}})
    assert flow["result"] == {"last": "0+1+2"}


async def test_parameter_without_results_fails_and_says_what_to_do(at_work: Api) -> None:
    flow = await ended(at_work, "/flows", fan(12, "join.list"))
    assert flow["result"] == {"last": 12}
    body = fan(40, "join.list")
    body["input"]["numbers"].remove(13)
    flow = await ended(at_work, "/flows", body)
    (last,) = (await at_work.client.get("/jobs", params={"flow": flow["id"], "node": "last"})).json()["items"]
    assert (flow["reason"], last["reason"]) == ("node_failed", "payload_invalid")
    assert "annotate the parameter with Results[...]" in last["error"]["message"]


async def test_results_are_checked_by_the_type(at_work: Api) -> None:
    refused = await at_work.client.post("/flows", json=fan(3, "sum.up"))
    assert "of each item, it is a string, not an object" in problem(refused, 422, "invalid-flow")["detail"]
    body = {"type": "join", "payload": {"parts": {"$results": {"nodes": [["each", ""]], "as_of": 1, "count": 3}}}}
    found = problem(await at_work.client.post("/jobs", json=body), 422, "invalid-payload")
    assert found["errors"][0]["pointer"] == "/payload/parts"


async def test_wrong_queries_are_refused(at_work: Api) -> None:
    flow = await ended(at_work, "/flows", fan(3))
    path = f"/jobs/{flow['id']}/results"
    for query in ("", "?nodes=none", "?nodes=each,last", "?nodes=each&limit=0", "?nodes=each&more=1", "?nodes=,"):
        problem(await at_work.client.get(path + query), 422, "invalid-query")
    (last,) = (await at_work.client.get("/jobs", params={"flow": flow["id"], "node": "last"})).json()["items"]
    problem(await at_work.client.get(f"/jobs/{last['id']}/results?nodes=each"), 409, "not-a-flow")
