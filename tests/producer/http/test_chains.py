"""``then`` in ``POST /jobs``, with a worker and a projector."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobtape import job
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.checker import Checker
from tests.consumer.installation import Rig
from tests.producer.running_api import Api, api, problem

pytestmark = pytest.mark.anyio


@job("double")
def double(x: int) -> int:
    return 2 * x


@job("pair")
def pair(parts: list[int]) -> list[int]:
    return parts


def body(x: Any = 1) -> dict[str, Any]:
    return {
        "type": "double",
        "payload": {"x": x},
        "labels": {"tenant": "7"},
        "then": [
            {"type": "double", "payload": {"x": {"$previous": ""}}},
            {"type": "pair", "payload": {"parts": [{"$from": "double"}, {"$previous": ""}]}},
        ],
    }


@pytest.fixture
async def at_work(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    async with api(settings, double, pair) as served, rig.projector(view), rig.worker(double, pair):
        yield served


async def test_chain_is_one_submission_and_hands_results_on(at_work: Api, rig: Rig, view: Store) -> None:
    headers = {"Idempotency-Key": "chain-7", "Prefer": "wait=30"}
    done = await at_work.client.post("/jobs", json=body(), headers=headers)
    flow = done.json()
    assert (done.status_code, flow["type"], flow["state"]) == (200, "jobtape.flow", "succeeded"), flow
    assert (flow["result"], flow["labels"]) == ({"pair": [2, 4]}, {"tenant": "7"})
    jobs = (await at_work.client.get("/jobs", params={"flow": flow["id"], "label": "tenant:7"})).json()["items"]
    assert {each["node"]: each["result"] for each in jobs} == {"double": 2, "double-2": 4, "pair": [2, 4]}
    again = await at_work.client.post("/jobs", json=body(), headers=headers)
    assert again.json()["id"] == flow["id"]
    other = await at_work.client.post("/jobs", json=body(2), headers=headers)
    assert problem(other, 422, "idempotency-key-reused")
    report = await Checker(rig.url, rig.topology).check(view)
    assert not report.problems, str(report)


async def test_fault_of_a_step_has_a_pointer_and_nothing_is_submitted(at_work: Api) -> None:
    wrong = body()
    wrong["then"][1]["payload"]["parts"] = {"$previous": "/0"}
    refused = await at_work.client.post("/jobs", json=wrong)
    found = problem(refused, 422, "invalid-submission")
    assert [each["pointer"] for each in found["errors"]] == ["/then/1/payload/parts"]
    assert (await at_work.client.get("/jobs")).json()["items"] == []


async def test_batch_takes_chains_beside_plain_jobs(at_work: Api) -> None:
    items = [body("a"), body(), {"type": "double", "payload": {"x": 1}}]
    answer = (await at_work.client.post("/jobs/batch", json=items)).json()
    assert [each["status"] for each in answer["items"]] == ["refused", "accepted", "accepted"]
    assert answer["items"][0]["problem"]["errors"][0]["pointer"] == "/payload/x"
    path = f"/jobs/{answer['items'][1]['id']}"
    flow = (await at_work.client.get(path, headers={"Prefer": "wait=30"})).json()
    assert flow["result"] == {"pair": [2, 4]}
