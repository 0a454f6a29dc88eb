"""Handlers submit jobs from the worker's event loop, its threads and the processes of isolated handlers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from jobtape import JobType
from jobtape.broker.declare import remove_namespace
from jobtape.cli.parts.worker import submissions
from jobtape.schemas.events import Submitted
from jobtape.settings import read_settings
from tests.consumer import submitting_jobs as jobs
from tests.consumer.installation import Rig
from tests.namespaces import some_topology
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

TIMES = 3
PARENTS = (
    jobs.parent_async,
    jobs.parent_async_options,
    jobs.parent_async_thread,
    jobs.parent_async_blocking,
    jobs.parent_def,
    jobs.parent_def_run,
    jobs.parent_def_thread,
    jobs.parent_isolated_def,
    jobs.parent_isolated_async,
    jobs.parent_isolated_thread,
)
JOBS = {each.name: each for each in (*PARENTS, jobs.child, jobs.refused, jobs.refused_isolated)}


@pytest.fixture(scope="module")
async def working(broker_url: str) -> AsyncIterator[Rig]:
    """Run one worker for all tests, whose handlers may submit."""
    topology = some_topology()
    settings = read_settings(
        rabbitmq_url=broker_url,
        namespace=topology.namespace,
        database_url="sqlite:////nowhere/none.db",
    )
    async with (
        Rig(broker_url, topology) as rig,
        submissions(settings, JOBS, "w"),
        rig.worker(*JOBS.values(), modules=["tests.consumer.submitting_jobs"]),
    ):
        yield rig
    await remove_namespace(broker_url, topology)


@pytest.mark.parametrize("parent", PARENTS, ids=lambda each: each.name)
async def test_handler_submits_job(working: Rig, parent: JobType[str]) -> None:
    for n in range(TIMES):
        correlation = f"{parent.name}-{n}"
        parent_id = await working.submit(parent.name, {"n": n}, correlation_id=correlation)
        outcome = await working.outcome(parent_id)
        assert outcome.name == "succeeded", outcome
        assert (await working.outcome(outcome.data.result)).data.result == n
        (child,) = [each for each in working.of(outcome.data.result) if isinstance(each, Submitted)]
        if "thread" not in parent.name or parent is jobs.parent_async_thread:  # a bare thread has no context
            assert (child.correlationid, child.causationid) == (correlation, f"{parent_id}/1/submitted")
    submitted = [each.data.order.payload for each in working.events if isinstance(each, Submitted)]
    assert len(submitted) % 2 == 0, "each parent has one child"


@pytest.mark.parametrize("name", ["refused", "refused-isolated"])
async def test_refused_submission_explains_what_to_do(working: Rig, name: str) -> None:
    outcome = await working.outcome(await working.submit(name, {"key": "k"}))
    key, queue = outcome.data.result
    assert "needs the database" in key
    assert "jobtape.SyncClient" in key
    assert "no queue 'nowhere'" in queue


async def test_handlers_submit_at_the_same_time(working: Rig) -> None:
    before = len(working.events)
    ids = [await working.submit(parent.name, {"n": 1}) for parent in PARENTS for _ in range(3)]
    outcomes = await asyncio.gather(*map(working.outcome, ids))
    assert {each.name for each in outcomes} == {"succeeded"}
    children = {each.data.result for each in outcomes}
    assert len(children) == len(ids)
    await asyncio.gather(*map(working.outcome, children))
    new = [each.subject for each in working.events[before:] if isinstance(each, Submitted)]
    assert sorted(new) == sorted([*ids, *children])


async def test_worker_without_submissions_opens_no_connection(broker_url: str) -> None:
    settings = read_settings(rabbitmq_url="amqp://127.0.0.1:1/", namespace="none")
    before = asyncio.all_tasks()
    async with submissions(settings, JOBS, "w"):
        await eventually(lambda: True)
        assert asyncio.all_tasks() == before
