"""Payload versions over HTTP: new jobs have the newest version, old jobs keep theirs."""

from collections.abc import AsyncIterator

import pytest

from jobtape.schemas import events
from jobtape.schemas.events import CONTENT_TYPE
from jobtape.schemas.topology import EVENT_KEY
from jobtape.settings import Settings
from jobtape.view.store import Store
from tests.consumer import version_jobs as jobs
from tests.consumer.installation import Rig, order_event
from tests.producer.running_api import Api, api, problem
from tests.schemas.old_events import as_version_1

pytestmark = pytest.mark.anyio


@pytest.fixture
async def greeting(settings: Settings, rig: Rig, view: Store) -> AsyncIterator[Api]:
    """An API with version 2 of the job type, and a projector."""
    async with rig.projector(view), api(settings, jobs.greet_async) as served:
        yield served


async def test_submission_is_checked_against_newest_version(greeting: Api) -> None:
    order = {"type": "greet.async", "payload": {"names": ["ann"]}}
    job = (await greeting.client.post("/jobs", json=order)).json()
    assert job["payload_version"] == 2
    assert (await greeting.client.get(f"/jobs/{job['id']}")).json()["payload_version"] == 2
    old = await greeting.client.post("/jobs", json=order | {"payload": {"name": "ann"}})
    assert "names: Field required" in problem(old, 422, "invalid-payload")["detail"]
    types = (await greeting.client.get("/job-types")).json()["items"]
    assert [each["version"] for each in types if each["name"] == "greet.async"] == [2]


async def test_job_of_version_1_keeps_its_payload(greeting: Api, rig: Rig) -> None:
    event = order_event(rig.topology, "greet.async", {"name": "ann"})
    body = as_version_1(event)
    await rig.publisher.send(body, EVENT_KEY, (), content_type=CONTENT_TYPE)
    url = f"/jobs/{event.subject}"
    job = (await greeting.client.get(url)).json()
    assert (job["payload"], job["payload_version"]) == ({"name": "ann"}, 1)
    (shown,) = (await greeting.client.get(f"{url}/events")).json()["items"]
    assert (shown["schemaversion"], shown["data"]["order"]["payload_version"]) == (2, 1)
    assert events.parse({name: shown[name] for name in shown.keys() - {"cursor", "accepted"}}) == event
    then = (await greeting.client.get(url, params={"as_of": shown["cursor"]})).json()
    assert then == job
