"""Flows of any shape, nested and mapped, run and forked, against a reference that decides from the definitions."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest

from jobtape import job
from jobtape.schemas.flows.graph import Node, NodeState, On
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.producer.running_api import Api, api
from tests.schemas.flows.test_graph import Reference

pytestmark = pytest.mark.anyio

FLOWS: Final = 16
Nodes = dict[str, dict[str, Any]]
Ok = Callable[[str], bool]
"""Says whether the job with this name would succeed."""

_ran: Counter[str] = Counter()
_broken: set[str] = set()


@job("model.step")
def step(name: str) -> str:
    _ran[name] += 1
    if name in _broken:
        raise ValueError(name)
    return name


def any_flow(chance: random.Random, path: str, depth: int = 0) -> Nodes:
    """Return the nodes of a flow. The names of its jobs begin with ``path``."""
    nodes: Nodes = {}
    for n in range(chance.randint(1, 5 if depth else 7)):
        name, here = f"n{n}", f"{path}/n{n}"
        kind = chance.choice(["step", "step", "map", "flow" if depth < 2 else "step"])
        if kind == "step":
            node: dict[str, Any] = {"type": "model.step", "payload": {"name": here}}
        elif kind == "flow":
            node = {"type": "jobtape.flow", "payload": {"nodes": any_flow(chance, here, depth + 1)}}
        else:
            items = [{"name": f"{here}/{i}"} for i in range(chance.randint(0, 3))]
            node = {
                "type": "jobtape.flow",
                "payload": {
                    "input": {"items": items},
                    "nodes": {"each": {"type": "model.step", "map": {"$input": "/items"}}},
                },
            }
        before = [other for other in nodes if chance.random() < 0.4]
        nodes[name] = node | {
            "after": before,
            "on": chance.choice(["success", "done", "failure"] if before else ["success"]),
        }
    return nodes


def jobs_in(nodes: Nodes, path: str) -> Iterator[str]:
    """Yield the names of all jobs of a flow with those in it."""
    for name, node in nodes.items():
        yield from jobs_of(node, f"{path}/{name}")


def jobs_of(node: dict[str, Any], here: str) -> Iterator[str]:
    if "map" in node["payload"].get("nodes", {}).get("each", {}):
        yield from (item["name"] for item in node["payload"]["input"]["items"])
    elif node["type"] == "jobtape.flow":
        yield from jobs_in(node["payload"]["nodes"], here)
    else:
        yield here


class Model:
    """How a flow ends, from the definitions. ``states``: of all nodes by path. ``began``: the jobs that begin."""

    def __init__(self, nodes: Nodes, path: str, ok: Ok) -> None:
        self.states: dict[str, NodeState] = {}
        self.began: set[str] = set()
        graph: dict[str, Node] = {}
        good: set[str] = set()
        inner: dict[str, Model] = {}
        for name, node in nodes.items():
            on: On = node["on"]
            graph[name] = Node(tuple(node["after"]), on)
            here = f"{path}/{name}"
            nested = node["payload"].get("nodes")
            if nested and "each" not in nested:
                inner[name] = Model(nested, here, ok)
            if inner[name].state() == "succeeded" if name in inner else all(map(ok, jobs_of(node, here))):
                good.add(name)
        reference = Reference(graph, good)
        for name, node in nodes.items():
            here = f"{path}/{name}"
            self.states[here] = reference.end(name)
            if self.states[here] is NodeState.SKIPPED:
                continue
            if name in inner:
                self.states |= inner[name].states
                self.began |= inner[name].began
            else:
                self.began.update(jobs_of(node, here))
        failed = [name for name in nodes if reference.end(name) is NodeState.FAILED]
        self._succeeded = all(reference.is_handled(name) for name in failed)

    def state(self) -> str:
        return "succeeded" if self._succeeded else "failed"


def taken_by(nodes: Nodes, path: str, ends: Model, ok: Ok, runs_again: set[str]) -> set[str]:
    """Return the jobs whose results a fork takes. ``runs_again``: the nodes that run again."""
    found: set[str] = set()
    for name, node in nodes.items():
        here = f"{path}/{name}"
        state = ends.states.get(here)
        if name in runs_again or state in (None, NodeState.SKIPPED):
            continue
        nested = node["payload"].get("nodes")
        if nested is None or "each" not in nested:
            if state is NodeState.SUCCEEDED:
                found |= {here} if nested is None else taken_by(nested, here, ends, ok, set())
        elif state is NodeState.SUCCEEDED:
            found.update(filter(ok, jobs_of(node, here)))
    return found


def after(nodes: Nodes, begin: str) -> set[str]:
    """Return the node and all that come after it, directly or not."""
    found = {begin}
    for name, node in nodes.items():  # in the order of the graph
        if found.intersection(node["after"]):
            found.add(name)
    return found


@pytest.fixture
async def at_work(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    async with api(settings, step) as served, rig.projector(view), rig.worker(step, concurrency=20):
        yield served


async def ended(served: Api, flow_id: str) -> dict[str, Any]:
    answer = await served.client.get(f"/jobs/{flow_id}", headers={"Prefer": "wait=50"})
    found: dict[str, Any] = answer.json()
    assert found["finished_at"] is not None, found
    return found


async def states(served: Api, flow_id: str, nodes: Nodes, path: str) -> dict[str, str]:
    """Return the states of all nodes of flows that have begun, by path."""
    found: dict[str, str] = {}
    for node in (await served.client.get(f"/jobs/{flow_id}/nodes")).json()["items"]:
        here = f"{path}/{node['name']}"
        found[here] = node["state"]
        nested = nodes[node["name"]]["payload"].get("nodes")
        if nested is not None and "each" not in nested and node["job"] is not None:
            found |= await states(served, node["job"], nested, here)
    return found


async def test_any_flow_and_any_fork_of_it_ends_as_the_definitions_say(at_work: Api, rig: Rig, view: Store) -> None:
    chance = random.Random(20)
    flows = {f"f{n}": any_flow(chance, f"f{n}") for n in range(FLOWS)}
    first = {name for path, nodes in flows.items() for name in jobs_in(nodes, path) if chance.random() < 0.25}
    second = {name for path, nodes in flows.items() for name in jobs_in(nodes, path) if chance.random() < 0.25}
    _ran.clear()
    _broken.clear()
    _broken.update(first)

    async def submitted(path: str) -> str:
        answer = await at_work.client.post("/flows", json={"nodes": flows[path]})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    ids = dict(zip(flows, await asyncio.gather(*map(submitted, flows)), strict=True))
    models = {path: Model(nodes, path, lambda name: name not in first) for path, nodes in flows.items()}
    for path, nodes in flows.items():
        assert (await ended(at_work, ids[path]))["state"] == models[path].state(), (path, nodes)
        assert await states(at_work, ids[path], nodes, path) == models[path].states, (path, nodes)
    assert _ran == Counter(name for model in models.values() for name in model.began)

    _ran.clear()
    _broken.clear()
    _broken.update(second)
    begins = {path: chance.choice(list(nodes)) for path, nodes in flows.items()}

    async def forked(path: str) -> str:
        answer = await at_work.client.post(f"/jobs/{ids[path]}/fork", json={"from": begins[path]})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    forks = dict(zip(flows, await asyncio.gather(*map(forked, flows)), strict=True))
    expected: Counter[str] = Counter()
    for path, nodes in flows.items():
        runs_again = after(nodes, begins[path])
        taken = taken_by(nodes, path, models[path], lambda name: name not in first, runs_again)
        model = Model(nodes, path, lambda name, taken=taken: name in taken or name not in second)  # type: ignore[misc]
        assert (await ended(at_work, forks[path]))["state"] == model.state(), (path, begins[path], nodes)
        assert await states(at_work, forks[path], nodes, path) == model.states, (path, begins[path], nodes)
        expected.update(model.began - taken)
    assert _ran == expected
    report = await Checker(rig.url, rig.topology).check(view)
    assert not report.problems, str(report)
