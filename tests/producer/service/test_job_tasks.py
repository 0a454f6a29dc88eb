"""``JobTasks`` in an application: which jobs are submitted, in which order, and what the client gets."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException

import jobtape
from jobtape import JobTasks, Options, PayloadInvalid
from jobtape.schemas.errors import SubmissionInvalid
from jobtape.schemas.events import Submitted
from jobtape.settings import Settings
from tests.broker.proxy import Proxy
from tests.consumer.installation import Rig
from tests.producer.jobs import add, keep
from tests.producer.running_api import running_producer
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

app = FastAPI()


def audit(jobs: JobTasks) -> str:
    """A dependency that adds a job before the path operation does."""
    return jobs.add(add, x=0)


@app.post("/orders")
async def orders(n: int, first: Annotated[str, Depends(audit)], jobs: JobTasks) -> list[str]:
    return [first, *(jobs.add(keep, data=[i]) if i % 2 else jobs.add(add, x=i) for i in range(1, n))]


@app.post("/plain")
def plain(jobs: JobTasks) -> str:
    return jobs.add_with(Options(labels={"a": "b"}), add, 7)


@app.post("/refused")
async def refused(jobs: JobTasks) -> None:
    jobs.add(add, x=1)
    raise HTTPException(409, "no")


@app.post("/broken", response_model=int)
async def broken(jobs: JobTasks) -> Any:
    jobs.add(add, x=1)
    return "not a number"


@app.post("/wrong")
async def wrong(jobs: JobTasks) -> list[str]:
    with pytest.raises(PayloadInvalid):
        jobs.add(add, x="one")
    with pytest.raises(SubmissionInvalid, match="decides the job's id"):
        jobs.add_with(Options(idempotency_key="k"), add, x=1)
    with pytest.raises(SubmissionInvalid, match="there is no queue 'nowhere'"):
        jobs.add_with(Options(queue="nowhere"), add, x=1)
    return jobs.ids


@pytest.fixture
async def proxy(broker_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(broker_url) as opened:
        yield opened


@pytest.fixture
async def client(proxy: Proxy, rig: Rig, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, which has its broker behind ``proxy``."""
    behind = settings.model_copy(update={"rabbitmq_url": proxy.url, "publish_timeout": 1.0})
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        jobtape.lifespan(job_types=[add, keep], settings=behind),
        httpx.AsyncClient(transport=transport, base_url="http://app") as opened,
    ):
        await eventually(lambda: running_producer().watch.tape_fault is None)
        yield opened


def submitted(rig: Rig) -> list[str]:
    return [event.subject for event in rig.events if isinstance(event, Submitted)]


async def test_jobs_are_on_the_tape_in_the_order_in_which_they_were_added(client: httpx.AsyncClient, rig: Rig) -> None:
    answer = await client.post("/orders?n=40")
    assert answer.status_code == 200, answer.text
    await eventually(lambda: len(submitted(rig)) == 40)
    assert submitted(rig) == answer.json()
    job_id = (await client.post("/plain")).json()
    await eventually(lambda: len(submitted(rig)) == 41)
    last = rig.events[-1]
    assert isinstance(last, Submitted)
    assert (last.subject, last.data.order.labels, last.data.order.payload["x"]) == (job_id, {"a": "b"}, 7)


async def test_nothing_is_submitted_when_the_request_fails(client: httpx.AsyncClient, rig: Rig) -> None:
    assert (await client.post("/refused")).status_code == 409
    assert (await client.post("/broken")).status_code == 500
    assert (await client.post("/wrong")).json() == []
    job_id = (await client.post("/plain")).json()
    await eventually(lambda: submitted(rig))
    assert submitted(rig) == [job_id], "what was submitted before would be before it on the tape"


async def test_client_gets_503_when_the_broker_does_not_confirm(
    client: httpx.AsyncClient, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.hold_answers = True
    with caplog.at_level(logging.ERROR, "jobtape"):
        answer = await client.post("/orders?n=3")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "try again" in answer.json()["detail"]
    (record,) = [each for each in caplog.records if each.name == "jobtape.tasks"]
    assert "POST /orders is answered with 503" in record.getMessage()
    assert "the 2 jobs after it were not submitted" in record.getMessage()
