"""Flows by both clients, and what ``Flow`` makes."""

import asyncio
from functools import partial
from typing import Any

import pytest

from jobtape import Client, Flow, Options, PayloadInvalid, SyncClient, chain, item, previous, step, step_with
from jobtape.client import Conflict, Invalid
from jobtape.schemas.flows.graph import NodeState
from tests.broker.proxy import Proxy
from tests.client.jobs import add, boom, period, steps
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


def test_flow_has_the_body_of_its_request() -> None:
    flow = Flow("import", labels={"tenant": "7"}, correlation_id="c", stop="now")
    one = flow.add(add, 1, y=2)
    again = flow.add(
        add, one.result, after=[one], options=Options(lane="high", timeout=3, max_attempts=2, labels={"a": "b"})
    )
    mapped = flow.map(add, over=one.result["a/b"][0], limit=5, node="all", x=item["x"], y=7)
    flow.map("add", over=mapped.result)
    flow.add(boom, text="x", after=[mapped, again], on="failure")
    assert flow.body() == {
        "name": "import",
        "labels": {"tenant": "7"},
        "correlation_id": "c",
        "stop": "now",
        "nodes": {
            "add": {"type": "add", "payload": {"x": 1, "y": 2}},
            "add-2": {
                "type": "add",
                "payload": {"x": {"$from": "add", "path": ""}},
                "after": ["add"],
                "lane": "high",
                "timeout": 3,
                "max_attempts": 2,
                "labels": {"a": "b"},
            },
            "all": {
                "type": "add",
                "payload": {"x": {"$item": "/x"}, "y": 7},
                "map": {"$from": "add", "path": "/a~1b/0"},
                "limit": 5,
            },
            "add-3": {"type": "add", "payload": {}, "map": {"$from": "all", "path": ""}},
            "boom": {"type": "boom", "payload": {"text": "x"}, "after": ["all", "add-2"], "on": "failure"},
        },
    }


def test_flow_in_a_flow_gets_its_arguments_as_input() -> None:
    inner = Flow("inner", labels={"a": "b"}, given={"y": 3})
    inner.map(add, over=inner.input["xs"], x=item, y=inner.input["y"])
    outer = Flow(given={"n": 1})
    first = outer.add(steps, n=outer.input["n"])
    outer.add(inner, xs=first.result, after=[first])
    assert outer.body()["input"] == {"n": 1}
    assert outer.body()["nodes"]["flow"] == {
        "type": "jobtape.flow",
        "payload": {
            "name": "inner",
            "stop": "end",
            "input": {"y": 3, "xs": {"$from": "steps", "path": ""}},
            "nodes": {
                "add": {
                    "type": "add",
                    "payload": {"x": {"$item": ""}, "y": {"$input": "/y"}},
                    "map": {"$input": "/xs"},
                }
            },
        },
        "after": ["steps"],
        "labels": {"a": "b"},
    }
    with pytest.raises(TypeError, match="keywords"):
        outer.add(inner, 3)
    with pytest.raises(ValueError, match="delay"):
        outer.add(Flow(delay=3))


def test_chain_hands_on_what_the_step_before_returned() -> None:
    flow = chain(step(add, 1, 2), step(add, x=previous, y=1), step("period.of", {"first": previous["day"], "days": 2}))
    assert [node.get("after") for node in flow.body()["nodes"].values()] == [None, ["add"], ["add-2"]]
    assert flow.body()["nodes"]["add-2"]["payload"] == {"x": {"$from": "add", "path": ""}, "y": 1}
    assert flow.body()["nodes"]["period.of"]["payload"]["first"] == {"$from": "add-2", "path": "/day"}
    flow = chain(step_with(Options(lane="low"), add, 1, 2))
    assert flow.body()["nodes"]["add"] == {"type": "add", "payload": {"x": 1, "y": 2}, "lane": "low"}


def test_mistakes_in_a_flow_are_errors_where_they_are_made() -> None:
    flow = Flow()
    first = flow.add(add, 1)
    with pytest.raises(PayloadInvalid):
        flow.add(add, "one")
    with pytest.raises(ValueError, match="add"):
        flow.add(add, 1, node="add")
    with pytest.raises(TypeError, match=r"Flow\.map"):
        list(first.result)
    with pytest.raises(ValueError, match="first step"):
        chain(step(add, previous))
    for options in (Options(delay=1), Options(correlation_id="a", reply_to="b"), Options(idempotency_key="a")):
        with pytest.raises(ValueError, match="a node of a flow has no option"):
            flow.add(add, 1, options=options)


async def test_flow_is_submitted_shown_and_cancelled(client: Client) -> None:
    flow = Flow("sums")
    one = flow.add(add, 1, 2)
    flow.add(add, one.result, node="later")
    handle = await client.submit_flow(flow, idempotency_key="flow-1")
    assert (handle.job.type, (await client.submit_flow(flow, idempotency_key="flow-1")).id) == (
        "jobtape.flow",
        handle.id,
    )

    async def first_runs() -> bool:
        return [node.name for node in await client.nodes(handle, state=NodeState.RUNNING)] == ["add"]

    await eventually(first_runs, what="the first node has a job")
    assert {node.name: node.state for node in await client.nodes(handle)}["later"] is NodeState.WAITING
    assert [node.name for node in await client.nodes(handle, state=NodeState.WAITING)][-1] == "later"
    await handle.cancel()
    assert (await handle.wait()).state == "cancelled"
    (later,) = await client.nodes(handle, state=NodeState.SKIPPED)
    assert (later.name, later.job, later.after) == ("later", None, ["add"])
    (later,) = await client.nodes(handle, state=NodeState.SKIPPED, as_of=(await client.get(handle)).cursor)
    assert later.name == "later"
    forked = await client.fork(handle, "add", {"x": 5}, idempotency_key="fork-1")
    assert forked.id == (await client.fork(handle, "add", {"x": 5}, idempotency_key="fork-1")).id != handle.id

    async def listed(node: str) -> list[str | None]:
        return [job.node async for job in client.list(flow=handle.id, node=node)]

    handle = await client.submit_flow(flow)
    assert await eventually(partial(listed, "add"), what="the job of the first node") == ["add"]
    assert await listed("later") == []
    with pytest.raises(Invalid, match="none"):
        await client.fork(handle, "none")
    with pytest.raises(Conflict, match="no flow"):
        await client.nodes(await client.submit(add, 1))


async def test_flow_that_cannot_run_is_refused_with_the_place(client: Client) -> None:
    flow = Flow()
    flow.add("none", {"x": 1})
    with pytest.raises(Invalid, match="none"):
        await client.submit_flow(flow)


async def test_blocking_client_submits_flows(network: Proxy) -> None:
    def use() -> Any:
        with SyncClient(network.url) as sync:
            handle = sync.submit_flow(chain(step(add, 1, 2), step(steps, n=previous), step(period, previous, days=1)))
            handle = sync.fork(handle, "steps")
            return [node.name for node in sync.nodes(handle)]

    assert await asyncio.to_thread(use) == ["add", "steps", "period.of"]
