"""Handlers that cancel and stop what is not theirs: each delivery is settled, and the worker continues."""

from collections import Counter
from collections.abc import Iterator

import pytest

from jobtape.jobs import JobType
from tests.consumer import jobs as good
from tests.consumer import unruly_jobs as jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    """Hold handlers until the end of the test."""
    jobs.gate.clear()
    jobs.calls.clear()
    yield
    jobs.gate.set()


@pytest.mark.parametrize(
    ("job_type", "payload"),
    [
        (jobs.cancels_task, {}),
        (jobs.child_cancels_parent, {}),
        (jobs.closes_its_coroutine, {}),
        (jobs.araises, {"name": "CancelledError"}),
        (jobs.on_loop, {"method": "stop"}),
        (jobs.thread_cancels_its_run, {}),
        (jobs.isolated_cancels_task, {}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_unruly_jobs_fail_once_each_and_worker_continues(
    rig: Rig, job_type: JobType, payload: dict[str, str]
) -> None:
    """There are more jobs than slots, and a healthy job runs after them."""
    async with rig.worker(job_type, good.aadd, concurrency=3) as running:
        ends = [await rig.submit(job_type.name, payload) for _ in range(7)]
        assert Counter([(await rig.outcome(job_id)).name for job_id in ends]) == {"failed": 7}
        assert (await rig.outcome(await rig.submit("aadd", {"x": 1, "y": 2}))).data.result == 3
        assert running.fault is None
    assert await rig.depth() == 0
    assert Counter(event.name for event in rig.events)["failed"] == 7


async def test_job_cancelled_by_other_handler_runs_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The aborted execution does not count as an attempt."""
    async with rig.worker(jobs.cancels_the_others, jobs.rests, concurrency=3):
        neighbour = await rig.submit("rests")
        await eventually(lambda: jobs.calls)
        assert (await rig.outcome(await rig.submit("cancels-the-others"))).name == "succeeded"
        outcome = await rig.outcome(neighbour)
    assert (outcome.name, outcome.data.attempt) == ("succeeded", 1)
    assert jobs.calls == ["rests", "rests"]
    assert "another handler cancelled the task in which rests ran" in caplog.text
    assert await rig.depth() == 0


async def test_jobs_that_cancel_each_other_all_end(rig: Rig) -> None:
    async with rig.worker(jobs.cancels_all, concurrency=3):
        ends = [await rig.submit("cancels-all") for _ in range(7)]
        outcomes = [await rig.outcome(job_id) for job_id in ends]
        assert Counter((each.name, each.data.error.type) for each in outcomes) == {("failed", "CancelledError"): 7}
    assert await rig.depth() == 0


async def test_cancelled_task_of_worker_gives_delivery_back(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async with rig.worker(jobs.rests, concurrency=1) as running:
        job_id = await rig.submit("rests")
        await eventually(lambda: jobs.calls)
        for task in list(running._tasks):
            task.cancel()
        assert (await rig.outcome(job_id)).name == "succeeded"
    assert jobs.calls == ["rests", "rests"]
    assert "not by this worker" in caplog.text
    assert await rig.depth() == 0


async def test_running_executor_thread_counts_as_stuck(rig: Rig) -> None:
    """Python would wait for it at the end of the process."""
    async with rig.worker(jobs.leaves_a_thread) as running:
        outcome = await rig.outcome(await rig.submit("leaves-a-thread", timeout=0.2))
        assert outcome.data.reason == "timeout"
        assert running.stuck_handlers == 0
    assert running.stuck_handlers == 1


async def test_ended_threads_do_not_count_as_stuck(rig: Rig) -> None:
    async with rig.worker(jobs.leaves_in_executor, jobs.leaves_in_thread) as running:
        for name in ("leaves-in-executor", "leaves-in-thread"):
            assert (await rig.outcome(await rig.submit(name))).name == "succeeded"
    assert running.stuck_handlers == 0
