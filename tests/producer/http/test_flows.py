"""Flows over HTTP, with a worker and a projector."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from jobtape import job
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.producer.running_api import Api, api, problem
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@job("numbers")
def numbers(n: int) -> dict[str, list[int]]:
    return {"items": list(range(n))}


@job("double")
def double(x: int) -> int:
    if x == 13:
        raise ValueError("unlucky")
    return 2 * x


@job("total")
def total(parts: list[int | None]) -> int:
    return sum(part or 0 for part in parts)


@job("note")
def note(text: str = "noted") -> str:
    return text


_ran: Counter[str] = Counter()
_broken: set[str] = set()


@job("mark")
def mark(name: str) -> str:
    _ran[name] += 1
    if name in _broken:
        raise ValueError(name)
    return name


@job("names")
def names(n: int) -> list[str]:
    _ran["names"] += 1
    return [f"n{i}" for i in range(n)]


@job("join")
def join(names: list[str | None]) -> str:
    _ran["join"] += 1
    return "".join(name or "-" for name in names)


TYPES = (numbers, double, total, note, mark, names, join)


@pytest.fixture
async def at_work(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    """An API with a projector and a worker."""
    async with api(settings, *TYPES) as served, rig.projector(view), rig.worker(*TYPES):
        yield served


async def run(served: Api, nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Submit a flow, wait for its end, and return it."""
    answer = await served.client.post("/flows", json={"nodes": nodes} | more)
    assert answer.status_code == 202, answer.text
    ended = await served.client.get(answer.headers["location"], headers={"Prefer": "wait=30"})
    found: dict[str, Any] = ended.json()
    assert found["finished_at"] is not None, found
    return found


async def states(served: Api, flow: dict[str, Any]) -> dict[str, str]:
    answer = await served.client.get(f"/jobs/{flow['id']}/nodes")
    assert answer.status_code == 200, answer.text
    return {node["name"]: node["state"] for node in answer.json()["items"]}


async def check(rig: Rig, view: Store) -> None:
    report = await Checker(rig.url, rig.topology).check(view)
    assert not report.problems, str(report)


FAN: dict[str, Any] = {
    "list": {"type": "numbers", "payload": {"n": 5}},
    "double": {"type": "double", "map": {"$from": "list", "path": "/items"}, "payload": {"x": {"$item": ""}}},
    "sum": {"type": "total", "payload": {"parts": {"$from": "double"}}},
}


async def test_chain_hands_results_on(at_work: Api, rig: Rig, view: Store) -> None:
    flow = await run(
        at_work,
        {
            "a": {"type": "double", "payload": {"x": 1}},
            "b": {"type": "double", "payload": {"x": {"$from": "a"}}},
            "c": {"type": "double", "payload": {"x": {"$from": "b"}}},
        },
        labels={"tenant": "7"},
        correlation_id="order-7",
    )
    assert (flow["state"], flow["result"], flow["type"]) == ("succeeded", {"c": 8}, "jobtape.flow")
    jobs = (await at_work.client.get("/jobs", params={"flow": flow["id"]})).json()["items"]
    assert {each["node"]: each["payload"]["x"] for each in jobs} == {"a": 1, "b": 2, "c": 4}
    assert all(each["flow"] == flow["id"] and each["labels"] == {"tenant": "7"} for each in jobs)
    assert all(each["correlation_id"] == "order-7" for each in jobs)
    await check(rig, view)


async def test_mapped_node_has_a_job_for_each_item_and_hands_on_the_list(at_work: Api, rig: Rig, view: Store) -> None:
    flow = await run(at_work, FAN)
    assert (flow["state"], flow["result"]) == ("succeeded", {"sum": 20})
    nodes = (await at_work.client.get(f"/jobs/{flow['id']}/nodes")).json()["items"]
    assert nodes[1] | {"job": None} == {
        "name": "double",
        "type": "double",
        "state": "succeeded",
        "on": "success",
        "after": ["list"],
        "job": None,
        "mapped": True,
        "items": 5,
        "jobs": {"succeeded": 5},
    }
    await check(rig, view)


async def test_failure_skips_what_follows_and_runs_its_handler(at_work: Api, rig: Rig, view: Store) -> None:
    """A mapped node with a failed job neither hangs (dramatiq#868) nor keeps its handler from being called, however far
    behind it is (celery#9107, celery#3317).
    """
    flow = await run(
        at_work,
        {
            **FAN,
            "list": {"type": "numbers", "payload": {"n": 15}},
            "after": {"type": "note", "after": ["sum"]},
            "alert": {"type": "note", "after": ["after"], "on": "failure", "payload": {"text": "alert"}},
            "always": {"type": "note", "after": ["sum"], "on": "done"},
            "never": {"type": "note", "after": ["alert"], "on": "failure"},
        },
    )
    assert flow["state"] == "succeeded", flow
    assert flow["result"] == {"alert": "alert", "always": "noted"}
    assert await states(at_work, flow) == {
        "list": "succeeded",
        "double": "failed",
        "sum": "skipped",
        "after": "skipped",
        "alert": "succeeded",
        "always": "succeeded",
        "never": "skipped",
    }
    await check(rig, view)


async def test_failure_that_no_node_handles_fails_the_flow(at_work: Api, rig: Rig, view: Store) -> None:
    flow = await run(
        at_work, {"bad": {"type": "double", "payload": {"x": 13}}, "next": {"type": "note", "after": ["bad"]}}
    )
    assert (flow["state"], flow["reason"], flow["error"]["type"]) == ("failed", "node_failed", "NodeFailed")
    assert "bad" in flow["error"]["message"]
    failed = (await at_work.client.get(f"/jobs/{flow['id']}/nodes", params={"state": "skipped"})).json()["items"]
    assert [node["name"] for node in failed] == ["next"]
    await check(rig, view)


async def test_empty_list_is_no_failure(at_work: Api) -> None:
    flow = await run(at_work, {**FAN, "list": {"type": "numbers", "payload": {"n": 0}}})
    assert (flow["state"], flow["result"]) == ("succeeded", {"sum": 0})


async def test_map_over_a_mapped_node_has_the_list_with_null_for_each_failure(
    at_work: Api, rig: Rig, view: Store
) -> None:
    nodes = {
        "list": {"type": "numbers", "payload": {"n": 15}},
        "double": {"type": "double", "map": {"$from": "list", "path": "/items"}, "payload": {"x": {"$item": ""}}},
        "again": {"type": "total", "map": {"$from": "double"}, "payload": {"parts": [{"$item": ""}]}, "on": "done"},
        "sum": {"type": "total", "payload": {"parts": {"$from": "again"}}},
        "part": {"type": "numbers", "map": {"$from": "list", "path": "/items"}, "payload": {"n": {"$item": ""}}},
        "inner": {"type": "double", "map": {"$from": "part", "path": "/3/items"}, "payload": {"x": {"$item": ""}}},
    }
    flow = await run(at_work, nodes)
    assert (flow["state"], flow["result"]) == ("succeeded", {"sum": 2 * (sum(range(15)) - 13)})
    found = {each["name"]: each for each in (await at_work.client.get(f"/jobs/{flow['id']}/nodes")).json()["items"]}
    assert {name: each["items"] for name, each in found.items() if each["mapped"]} == {
        "double": 15,
        "again": 15,
        "part": 15,
        "inner": 3,
    }
    assert found["inner"]["state"] == found["again"]["state"] == "succeeded"
    await check(rig, view)


async def test_mapped_node_without_a_list_has_the_result_null(at_work: Api, rig: Rig, view: Store) -> None:
    nodes = {
        "bad": {"type": "numbers", "payload": {"n": {"$from": "list", "path": "/items/7"}}},
        "list": {"type": "numbers", "payload": {"n": 0}},
        "skipped": {
            "type": "double",
            "map": {"$from": "list", "path": "/items"},
            "payload": {"x": {"$item": ""}},
            "after": ["bad"],
        },
        "unlisted": {
            "type": "double",
            "map": {"$from": "bad", "path": "/items"},
            "payload": {"x": {"$item": ""}},
            "on": "done",
        },
        "over": {"type": "double", "map": {"$from": "skipped"}, "payload": {"x": {"$item": ""}}, "on": "done"},
        "note": {
            "type": "total",
            "payload": {"parts": [{"$from": "skipped"}, {"$from": "unlisted"}]},
            "after": ["over"],
            "on": "done",
        },
    }
    flow = await run(at_work, nodes)
    assert (flow["state"], flow["result"]) == ("succeeded", {"note": 0})
    assert await states(at_work, flow) == {
        "bad": "failed",
        "list": "succeeded",
        "skipped": "skipped",
        "unlisted": "failed",
        "over": "failed",
        "note": "succeeded",
    }
    await check(rig, view)


async def test_reference_to_nothing_fails_the_node_and_says_where(at_work: Api, rig: Rig, view: Store) -> None:
    nodes = {
        "list": {"type": "numbers", "payload": {"n": 2}},
        "next": {"type": "double", "payload": {"x": {"$from": "list", "path": "/items/7"}}},
        "map": {"type": "double", "map": {"$from": "list", "path": "/nowhere"}, "payload": {"x": {"$item": ""}}},
    }
    flow = await run(at_work, nodes)
    assert flow["state"] == "failed"
    jobs = (await at_work.client.get("/jobs", params={"flow": flow["id"]})).json()["items"]
    errors = {each["node"]: each["error"] for each in jobs if each["state"] == "failed"}
    assert "'/items/7'" in errors["next"]["message"] and "'/nowhere'" in errors["map"]["message"]
    await check(rig, view)


async def test_same_key_is_one_flow(at_work: Api) -> None:
    body = {"nodes": {"a": {"type": "note"}}}
    answers = [
        await at_work.client.post("/flows", json=body, headers={"Idempotency-Key": "k", "Prefer": "wait=20"})
        for _ in range(2)
    ]
    assert answers[0].json()["id"] == answers[1].json()["id"]


async def test_fault_of_a_flow_has_a_pointer(at_work: Api) -> None:
    answer = await at_work.client.post("/flows", json={"nodes": {"a": {"type": "double", "payload": {"x": "one"}}}})
    found = problem(answer, 422, "invalid-flow")
    assert [each["pointer"] for each in found["errors"]] == ["/nodes/a/payload/x"]
    answer = await at_work.client.post("/flows", json={"nodes": {"a": {"type": "note"}}, "queue": "default"})
    found = problem(answer, 422, "invalid-flow")
    assert [each["pointer"] for each in found["errors"]] == ["/queue"]


async def test_job_that_is_no_flow_has_no_nodes(at_work: Api) -> None:
    answer = await at_work.client.post("/jobs", json={"type": "note", "payload": {}})
    problem(await at_work.client.get(f"/jobs/{answer.json()['id']}/nodes"), 409, "not-a-flow")


MARKED: dict[str, Any] = {
    "names": {"type": "names", "payload": {"n": 4}},
    "each": {"type": "mark", "map": {"$from": "names"}, "payload": {"name": {"$item": ""}}},
    "inner": {
        "type": "jobtape.flow",
        "payload": {
            "input": {"first": {"$from": "names", "path": "/0"}},
            "nodes": {
                "one": {"type": "mark", "payload": {"name": "one"}},
                "two": {"type": "mark", "payload": {"name": {"$input": "/first"}}, "after": ["one"]},
            },
        },
    },
    "beside": {"type": "mark", "payload": {"name": "beside"}},
    "join": {"type": "join", "payload": {"names": {"$from": "each"}}, "after": ["inner"], "on": "done"},
    "end": {"type": "mark", "payload": {"name": {"$from": "join"}}},
}


async def fork(served: Api, flow: dict[str, Any], body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Fork a flow, wait for the end of the new one, and return it."""
    answer = await served.client.post(f"/jobs/{flow['id']}/fork", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = (await served.client.get(answer.headers["location"], headers={"Prefer": "wait=30"})).json()
    assert found["finished_at"] is not None and found["id"] != flow["id"], found
    return found


async def test_fork_runs_anew_from_a_node_on_and_takes_other_results(at_work: Api, rig: Rig, view: Store) -> None:
    _ran.clear()
    _broken.clear()
    _broken.update(("n2", "beside"))
    flow = await run(at_work, MARKED, labels={"tenant": "7"}, correlation_id="order-7")
    assert flow["state"] == "failed"  # because of ``beside``
    assert _ran == dict.fromkeys(("names", "one", "n1", "n2", "n3", "join", "beside", "n0n1-n3"), 1) | {"n0": 2}
    _ran.clear()
    _broken.clear()
    forked = await fork(at_work, flow, {"from": "join"}, **{"Idempotency-Key": "again"})
    assert (forked["state"], forked["result"]) == (
        "succeeded",
        {"beside": "beside", "end": "n0n1n2n3"},
    )
    assert (forked["labels"], forked["correlation_id"]) == ({"tenant": "7"}, "order-7")
    # What failed beside the node runs too, what had succeeded does not.
    assert _ran == dict.fromkeys(("n2", "beside", "join", "n0n1n2n3"), 1)
    for each in (flow, forked):
        assert set((await states(at_work, each)).values()) <= {"succeeded", "failed"}
    inner = (await at_work.client.get("/jobs", params={"flow": forked["id"], "node": "inner"})).json()["items"][0]
    assert await states(at_work, inner) == {"one": "succeeded", "two": "succeeded"}
    again = await fork(at_work, flow, {"from": "join"}, **{"Idempotency-Key": "again"})
    assert again["id"] == forked["id"]
    other = await at_work.client.post(
        f"/jobs/{flow['id']}/fork", json={"from": "end"}, headers={"Idempotency-Key": "again"}
    )
    problem(other, 422, "idempotency-key-reused")

    _ran.clear()
    second = await fork(at_work, forked, {"from": "end", "payload": {"name": {"$from": "names", "path": "/3"}}})
    assert second["result"]["end"] == "n3" and _ran == {"n3": 1}
    _ran.clear()
    third = await fork(at_work, forked, {"from": "names", "payload": {"n": 1}})
    assert third["result"]["end"] == "n0" and _ran == {"names": 1, "n0": 3, "one": 1, "join": 1}
    await check(rig, view)


async def test_fork_takes_signals_that_came_and_times_that_were_over(at_work: Api, rig: Rig, view: Store) -> None:
    """Otherwise its jobs that take their results would wait for the signals again."""
    _broken.clear()
    after_time = {"two": {"type": "mark", "payload": {"name": "two"}, "after": ["paid"]}}
    nodes = {
        "one": {"type": "mark", "payload": {"name": {"$from": "approved", "path": "/by"}}},
        "inner": {"type": "jobtape.flow", "payload": {"nodes": after_time, "signals": {"paid": {"timeout": 0.1}}}},
        "end": {"type": "mark", "payload": {"name": {"$from": "one"}}, "after": ["inner"]},
    }
    submitted = await at_work.client.post("/flows", json={"nodes": nodes, "signals": {"approved": {}}})
    flow = submitted.json()
    sent = await at_work.client.post(f"/jobs/{flow['id']}/signals/approved", json={"payload": {"by": "Ada"}})
    assert sent.status_code == 200, sent.text
    ended = await at_work.client.get(submitted.headers["location"], headers={"Prefer": "wait=30"})
    assert ended.json()["state"] == "succeeded"
    _ran.clear()
    forked = await fork(at_work, flow, {"from": "end"})
    assert (forked["state"], forked["result"], _ran) == ("succeeded", {"end": "Ada"}, {"Ada": 1})
    assert forked["signals"] == ended.json()["signals"] != {}
    await check(rig, view)


async def test_fork_that_cannot_run_is_refused(at_work: Api, view: Store) -> None:
    _broken.clear()
    flow = await run(at_work, MARKED)
    for body, where in (
        ({"from": "none"}, "/from"),
        ({}, "/from"),
        ({"from": "join", "payload": {"names": 3}}, "/payload/names"),
        ({"from": "each", "payload": {"name": {"$from": "end"}}}, "/payload"),
        ({"from": "join", "until": 3}, "/until"),
    ):
        answer = await at_work.client.post(f"/jobs/{flow['id']}/fork", json=body)
        assert [each["pointer"] for each in problem(answer, 422, "invalid-flow")["errors"]] == [where]
    one = (await at_work.client.get("/jobs", params={"flow": flow["id"], "node": "end"})).json()["items"][0]
    problem(await at_work.client.post(f"/jobs/{one['id']}/fork", json={"from": "end"}), 409, "not-a-flow")
    later = datetime(2100, 1, 1, tzinfo=UTC)

    def flow_is_gone() -> bool:
        view.retention.prune("p1", later)
        return view.job(flow["id"]) is None

    await eventually(flow_is_gone)
    problem(await at_work.client.post(f"/jobs/{flow['id']}/fork", json={"from": "end"}), 410, "job-gone")


async def test_nodes_of_the_past_are_those_at_the_cursor(at_work: Api, view: Store) -> None:
    _broken.clear()
    flow = await run(at_work, MARKED)
    seen: dict[str, list[str]] = {}
    items: dict[str, set[int | None]] = {}
    for cursor in [row.cursor for row in view.history(limit=1000) if row.cursor >= view.history(flow["id"])[0].cursor]:
        answer = await at_work.client.get(f"/jobs/{flow['id']}/nodes", params={"as_of": cursor})
        assert answer.headers["jobtape-as-of"] == str(cursor)
        for node in answer.json()["items"]:
            states_ = seen.setdefault(node["name"], [])
            if states_[-1:] != [node["state"]]:
                states_.append(node["state"])
            items.setdefault(node["name"], set()).add(node["items"])
    assert seen == {name: ["waiting", "running", "succeeded"] for name in MARKED}
    assert items.pop("each") == {None, 4} and all(each == {None} for each in items.values())
    answer = await at_work.client.get(f"/jobs/{flow['id']}/nodes", params={"as_of": 1})
    assert answer.status_code in (404, 410)
