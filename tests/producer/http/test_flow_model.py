"""Flows of any shape, nested and mapped, run and forked, against a reference that decides from the definitions."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from jobtape import job
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.producer.running_api import Api, api
from tests.schemas.flows.model import Model, Nodes, after, any_flow, flow_in, jobs_in, taken_by

pytestmark = pytest.mark.anyio

FLOWS: Final = 16
_ran: Counter[str] = Counter()
_broken: set[str] = set()


@job("model.step")
def step(name: str, parts: Any = None) -> str:
    _ran[name] += 1
    if name in _broken:
        raise ValueError(name)
    return name


@job("model.items")
def items(items: list[dict[str, str]]) -> list[dict[str, str]]:
    return items


@pytest.fixture
async def at_work(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    async with api(settings, step, items) as served, rig.projector(view), rig.worker(step, items, concurrency=20):
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
        nested = flow_in(nodes[node["name"]])
        if nested is not None and node["job"] is not None:
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
        taken = taken_by(nodes, path, models[path], after(nodes, begins[path]))
        model = Model(nodes, path, lambda name, taken=taken: name in taken or name not in second)  # type: ignore[misc]
        assert (await ended(at_work, forks[path]))["state"] == model.state(), (path, begins[path], nodes)
        assert await states(at_work, forks[path], nodes, path) == model.states, (path, begins[path], nodes)
        expected.update(model.began - taken)
    assert _ran == expected
    report = await Checker(rig.url, rig.topology).check(view)
    assert not report.problems, str(report)
