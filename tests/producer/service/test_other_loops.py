"""Submissions from any thread and event loop of the process, and those that are refused."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio.from_thread
import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI

import jobtape
from jobtape import BrokerUnavailable, Job, JobtapeError, Options, PayloadInvalid
from jobtape.process import running
from jobtape.settings import Settings
from tests.conftest import MakeTopology
from tests.consumer.installation import Rig
from tests.producer.jobs import add, keep
from tests.producer.running_api import Api, running_producer, settings_for
from tests.waiting import eventually, within

pytestmark = pytest.mark.anyio

TIMES = 10
"""Submissions in a row by each way."""
Way = Callable[[], Job]


async def patient() -> Job:
    async with asyncio.timeout(10):
        return await add.submit(x=1, y=2)


async def side_by_side() -> Job:
    first, *_ = await asyncio.gather(add.submit(x=1, y=2), asyncio.sleep(0))
    return first


WAYS: dict[str, Way] = {
    "asyncio.run": lambda: asyncio.run(add.submit(x=1, y=2)),
    "asyncio.run with a deadline": lambda: asyncio.run(patient()),
    "asyncio.run with others": lambda: asyncio.run(side_by_side()),
    "options": lambda: asyncio.run(add.submit_with(Options(labels={"a": "b"}, delay=0.0), x=1, y=2)),
    "submit_sync": lambda: add.submit_sync(x=1, y=2),
    "submit_sync_with": lambda: add.submit_sync_with(Options(correlation_id="c"), 1, y=2),
}


@pytest.fixture
async def running_here(settings: Settings, rig: Rig) -> AsyncIterator[None]:
    """Enter the lifespan on the test's event loop, as an application does."""
    async with jobtape.lifespan(job_types=[add, keep], settings=settings):
        await eventually(lambda: running_producer().watch.tape_fault is None)
        yield


@pytest.mark.usefixtures("running_here")
@pytest.mark.parametrize("way", WAYS)
async def test_thread_submits_one_job_per_call(rig: Rig, way: str) -> None:
    with within(5):
        jobs = [await asyncio.to_thread(WAYS[way]) for _ in range(TIMES)]
    assert len({job.id for job in jobs}) == TIMES
    await rig.read_to_end()
    assert sorted(event.subject for event in rig.events) == sorted(job.id for job in jobs)


@pytest.mark.usefixtures("running_here")
async def test_many_threads_submit_concurrently(rig: Rig) -> None:
    """Each thread has an event loop of its own, some of them anyio's."""

    async def several() -> list[Job]:
        return list(await asyncio.gather(*(add.submit(x=n) for n in range(20))))

    def from_anyio() -> list[Job]:
        return [anyio.from_thread.run(add.submit, 1) for _ in range(10)]

    found = await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, several()) for _ in range(4)), anyio.to_thread.run_sync(from_anyio)
    )
    ids = {job.id for each in found for job in each}
    assert len(ids) == 90
    await rig.read_to_end()
    assert {event.subject for event in rig.events} == ids
    assert len(rig.events) == 90


@pytest.mark.parametrize("route", ["/run", "/sync", "/async"])
async def test_endpoints_of_each_kind_submit(settings: Settings, rig: Rig, route: str) -> None:
    app = FastAPI(lifespan=partial(jobtape.lifespan, job_types=[add], settings=settings))

    @app.post("/run")
    def run() -> str:
        return asyncio.run(add.submit(x=1, y=1)).id

    @app.post("/sync")
    def sync() -> str:
        return add.submit_sync(x=1, y=1).id

    @app.post("/async")
    async def asynchronous() -> str:
        return (await add.submit(x=1, y=1)).id

    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api", timeout=30) as client,
    ):
        ids = [(await client.post(route)).json() for _ in range(TIMES)]
    await rig.read_to_end()
    assert sorted(event.subject for event in rig.events) == sorted(ids)


@pytest.mark.usefixtures("running_here", "view")
async def test_key_is_one_job_across_loops(rig: Rig) -> None:
    options = Options(idempotency_key="k")
    with_key: list[Callable[[], Job]] = [
        lambda: asyncio.run(add.submit_with(options, x=1)),
        lambda: add.submit_sync_with(options, x=1),
    ]
    async with rig.projector(view_of(rig)):
        jobs = [await asyncio.to_thread(way) for way in with_key * 5]
        jobs.append(await add.submit_with(options, x=1))
    assert len({job.id for job in jobs}) == 1
    await rig.read_to_end()
    assert [event.name for event in rig.events] == ["submitted"]


def view_of(_: Rig) -> Any:
    return running_producer().store


@pytest.mark.usefixtures("running_here")
async def test_errors_are_raised_in_caller(rig: Rig) -> None:
    with pytest.raises(PayloadInvalid):
        await asyncio.to_thread(lambda: asyncio.run(add.submit(x="no")))
    with pytest.raises(PayloadInvalid):
        await asyncio.to_thread(lambda: add.submit_sync(x="no"))
    with pytest.raises(JobtapeError, match=r"await job_type\.submit"):
        add.submit_sync(x=1)
    with pytest.raises(JobtapeError, match="submit_sync"):
        await asyncio.to_thread(lambda: add.submit(x=1).send(None))
    last = await add.submit(x=2)
    await rig.read_to_end()
    assert [event.subject for event in rig.events] == [last.id]


async def test_blocked_loop_submits_nothing(settings: Settings, rig: Rig) -> None:
    """The thread waits for the loop, and the loop for the thread. The submission is not made later either."""
    short = settings.model_copy(update={"publish_timeout": 0.5})
    async with jobtape.lifespan(job_types=[add], settings=short):
        await eventually(lambda: running_producer().watch.tape_fault is None)
        for way in (lambda: add.submit_sync(x=1), lambda: asyncio.run(add.submit(x=1))):
            with pytest.raises(JobtapeError, match=r"nothing was submitted.*something blocks it"):
                in_a_thread(way)
        last = await add.submit(x=2)
        await rig.read_to_end()
        assert [event.subject for event in rig.events] == [last.id]


def in_a_thread(way: Way) -> Job:
    """Run ``way`` in a thread and block this thread, with its event loop, until it ends."""
    outcome: list[Any] = []

    def do() -> None:
        try:
            outcome.append(way())
        except JobtapeError as error:
            outcome.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
    if isinstance(outcome[0], JobtapeError):
        raise outcome[0]
    job: Job = outcome[0]
    return job


async def test_caller_timeout_cancels_submission(settings: Settings) -> None:
    """The broker is away. The caller's timeout also ends the call on the other loop."""
    away = settings.model_copy(update={"rabbitmq_url": "amqp://127.0.0.1:1/"})

    async def hurried() -> None:
        async with asyncio.timeout(0.2):
            await add.submit(x=1)

    async with jobtape.lifespan(job_types=[add], settings=away):
        before = len(asyncio.all_tasks())
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(lambda: asyncio.run(hurried()))
        await eventually(lambda: len(asyncio.all_tasks()) <= before, what="the call has ended on its loop")


async def test_lifespan_end_during_submission_is_unknown(settings: Settings) -> None:
    away = settings.model_copy(update={"rabbitmq_url": "amqp://127.0.0.1:1/"})
    async with jobtape.lifespan(job_types=[add], settings=away):
        before = len(asyncio.all_tasks())
        waiting = asyncio.create_task(asyncio.to_thread(add.submit_sync, x=1))
        other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(add.submit(x=1))))
        await eventually(lambda: len(asyncio.all_tasks()) >= before + 4, what="both wait")
    for each in (waiting, other):
        with pytest.raises(BrokerUnavailable, match="may or may not"):
            await each


async def test_submit_after_lifespan_is_refused(settings: Settings, rig: Rig) -> None:
    async with jobtape.lifespan(job_types=[add], settings=settings):
        pass
    with pytest.raises(JobtapeError, match="no Jobtape is running"):
        await add.submit(x=1)
    with pytest.raises(JobtapeError, match="no Jobtape is running"):
        await asyncio.to_thread(add.submit_sync, x=1)


async def test_submit_to_stopped_or_closed_loop_is_refused(settings: Settings, rig: Rig) -> None:
    def without_end() -> None:
        loop = asyncio.new_event_loop()
        lifespan = jobtape.lifespan(job_types=[add], settings=settings)
        loop.run_until_complete(lifespan.__aenter__())
        installation = running.serving()
        try:
            with pytest.raises(JobtapeError, match="is not running"):
                asyncio.run(add.submit(x=1))
            job = loop.run_until_complete(add.submit(x=2))
            assert job.id
        finally:
            loop.run_until_complete(lifespan.__aexit__(None, None, None))
            loop.close()
        running.register(installation)  # as if the lifespan had not ended
        try:
            with pytest.raises(JobtapeError, match="has ended"):
                add.submit_sync(x=1)
        finally:
            running.unregister(installation)

    await asyncio.to_thread(without_end)


async def test_submission_uses_installation_of_loop_or_job_type(
    broker_url: str, settings: Settings, rig: Rig, make_topology: MakeTopology
) -> None:
    """On the loop of a lifespan its own installation is used, elsewhere the one with the job type."""
    other_settings = settings_for(broker_url, make_topology(), settings.database_url)
    begun, end = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    async def other() -> None:
        async with jobtape.lifespan(job_types=[add, keep], settings=other_settings):
            await eventually(lambda: running_producer().watch.broker_fault is None)
            found["topology"] = running_producer().topology.namespace
            begun.set()
            await asyncio.to_thread(end.wait)

    async with jobtape.lifespan(job_types=[add], settings=settings):
        thread = threading.Thread(target=asyncio.run, args=(other(),))
        thread.start()
        try:
            await asyncio.to_thread(begun.wait)
            assert found["topology"] == other_settings.namespace
            assert running_producer().topology.namespace == settings.namespace
            job = await add.submit(x=1)
            await eventually(lambda: rig.of(job.id))
            with pytest.raises(JobtapeError, match="several installations"):
                await asyncio.to_thread(add.submit_sync, x=1)
            with pytest.raises(jobtape.TapeMissing):  # it has no tape: so it was the other one that was asked
                await asyncio.to_thread(keep.submit_sync, data=[])
        finally:
            end.set()
            await asyncio.to_thread(thread.join)


async def test_api_served_from_another_loop_is_not_running(served: Api) -> None:
    async def use() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=served.app), base_url="http://api") as client:
            return await client.get("/job-types")

    answer = await asyncio.to_thread(lambda: asyncio.run(use()))
    assert (answer.status_code, "on one loop" in answer.json()["detail"]) == (503, True)


async def test_forked_process_is_refused_with_advice(settings: Settings) -> None:
    async with jobtape.lifespan(job_types=[add], settings=settings):
        installation = running.serving()
        running._registered[:] = [(installation, -1)]  # what a fork finds: the id of another process
        try:
            with pytest.raises(JobtapeError, match="forked"):
                await asyncio.to_thread(add.submit_sync, x=1)
        finally:
            running._registered[:] = [(installation, os.getpid())]
