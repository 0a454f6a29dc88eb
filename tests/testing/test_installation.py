"""An installation in memory: what it leaves, where its submissions go, and what it says when a job does not end."""

import asyncio
import threading
from typing import Any

import pytest

from jobtape import JobtapeError, job
from jobtape.process import clock, running
from jobtape.schemas.errors import JobTypeInvalid
from jobtape.testing import memory, on_broker
from tests.testing import jobs

release = threading.Event()


@job("stuck")
def stuck() -> None:
    release.wait(20)


def test_installation_leaves_nothing_behind() -> None:
    threads = threading.active_count()
    for _ in range(2):
        with memory([jobs.add]) as jt:
            assert jt.jobs() == []
            jobs.add.submit_sync(x=1, y=1)
            jt.advance_sync(days=400)
            assert [each.state for each in jt.jobs()] == ["succeeded"]
            assert clock.offset() > 399 * 86_400
        assert clock.offset() == 0
        with pytest.raises(JobtapeError, match="no Jobtape is running"):
            jobs.add.submit_sync(x=1, y=1)
    assert threading.active_count() <= threads + 2  # a handler's thread waits a moment for the next one


def test_inner_installation_takes_submissions_of_outer_one() -> None:
    with memory([jobs.add]) as outer:
        with memory([jobs.add]) as inner:
            jobs.add.submit_sync(x=1, y=1)
            assert len(inner.jobs()) == 1
        jobs.add.submit_sync(x=2, y=2)
        assert [each.payload for each in outer.jobs()] == [{"x": 2, "y": 2}]


def test_drain_names_jobs_that_do_not_end() -> None:
    release.clear()
    with memory([stuck]) as jt:
        submitted = stuck.submit_sync()
        with pytest.raises(JobtapeError, match=f"stuck {submitted.id}"):
            jt.drain_sync(timeout=0.2)
        release.set()
        jt.drain_sync()
        assert jt[submitted].state == "succeeded"


def test_installation_refuses_what_cannot_be() -> None:
    with memory([jobs.add]) as jt, pytest.raises(KeyError, match="no job 0198c0de"):
        _ = jt["0198c0de-0000-7000-8000-000000000000"]
    other: Any = job("add")(lambda_like)
    with pytest.raises(JobTypeInvalid, match="'add'"):
        memory([jobs.add, other])
    with pytest.raises(JobtapeError, match="JOBTAPE_MAX_RESULT"):
        memory([jobs.add], max_result=-1).__enter__()


@pytest.mark.anyio
async def test_faults_need_memory_and_async_block_removes_namespace(broker_url: str) -> None:
    async with on_broker(broker_url, [jobs.add]) as jt:
        submitted = await jobs.add.submit(x=1, y=1)
        with pytest.raises(JobtapeError, match="only the broker in memory"):
            jt.die_before_ack(submitted)
    with pytest.raises(JobtapeError):
        running.serving()


@pytest.mark.anyio
async def test_calls_work_from_several_loops() -> None:
    with memory([jobs.add]) as jt:

        def submit() -> str:
            return asyncio.run(jobs.add.submit(x=1, y=1)).id

        ids = await asyncio.gather(*(asyncio.to_thread(submit) for _ in range(4)))
        await jt.drain()
        assert {jt[each].state for each in ids} == {"succeeded"}


def lambda_like(x: int) -> int:
    return x
