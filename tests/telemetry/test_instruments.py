"""The metrics that a process counts itself, and the server for them."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobtape import job
from jobtape.cli.parts import serving
from jobtape.telemetry import instruments
from jobtape.telemetry.metrics import METRICS
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig

pytestmark = pytest.mark.anyio


@job("measured")
def measured(fail: bool) -> None:
    if fail:
        raise ValueError


def value(name: str, **labels: str) -> float:
    return instruments.REGISTRY.get_sample_value(name, labels) or 0.0


def client(key: str | None) -> httpx.AsyncClient:
    app = serving._health_application("worker", lambda: None, key)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker")


async def test_health_server_has_metrics_of_the_process() -> None:
    async with client(None) as asking:
        text = (await asking.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for spec in METRICS:
        assert (spec.name in families) == (spec.source == "process")
        if spec.name in families:
            assert (families[spec.name].type, families[spec.name].documentation) == (spec.kind, spec.meaning)


async def test_metrics_of_the_process_need_the_key() -> None:
    async with client("a-secret-key") as asking:
        assert (await asking.get("/metrics")).status_code == 401
        for sent, status in (("other-key", 401), ("a-secret-key", 200)):
            answer = await asking.get("/metrics", headers={"Authorization": f"Bearer {sent}"})
            assert answer.status_code == status
        assert (await asking.get("/health/live")).status_code == 200


async def test_executions_are_counted_by_type_and_outcome(broker_url: str, make_topology: MakeTopology) -> None:
    async with Rig(broker_url, make_topology()) as rig, rig.worker(measured):
        confirms = value("jobtape_publish_confirm_seconds_count")
        for fail in (False, True):
            await rig.outcome(await rig.submit("measured", {"fail": fail}))
    for outcome in ("succeeded", "failed"):
        assert value("jobtape_run_seconds_count", job_type="measured", outcome=outcome) == 1
    assert value("jobtape_job_wait_seconds_count", job_type="measured") == 2
    assert value("jobtape_publish_confirm_seconds_count") >= confirms + 4
