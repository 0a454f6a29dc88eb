"""Handlers that do not end in time, in threads and on the loop, and the other jobs of their worker.

X. Isolated handlers are in test_isolated, those that kill their worker in
tests/faults/test_poison.
"""

from collections.abc import Iterator

import pytest

from jobtape import JobType
from jobtape.consumer.worker import stuck_handlers, worker
from jobtape.consumer.worker.handlers import handlers
from jobtape.schemas.errors import WorkerStuck
from tests.consumer import stubborn_jobs as jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold handlers until the end of the test, and shorten how long late ones are waited for."""
    monkeypatch.setattr(handlers, "LONGEST_DELAY", 0.5)
    jobs.gate.clear()
    jobs.calls.clear()
    yield
    jobs.gate.set()


@pytest.mark.parametrize("culprit", [jobs.aspin, jobs.ablock, jobs.child_spins], ids=lambda each: each.name)
async def test_handler_that_blocks_loop_fails_and_worker_ends(rig: Rig, culprit: JobType) -> None:
    """Other jobs on the loop go back to their queue, and a job in a thread finishes."""
    with pytest.raises(WorkerStuck, match=f"{culprit.name} blocks the loop"):
        async with rig.worker(culprit, jobs.pause, jobs.quick, grace=3.0):
            neighbour = await rig.submit("pause", {"seconds": 1.5}, timeout=2.0)
            await eventually(lambda: "pause" in jobs.calls)
            blocking = await rig.submit(culprit.name, timeout=1.0)
            await eventually(lambda: culprit.name in jobs.calls)
            thread = await rig.submit("quick")
            assert (await rig.outcome(thread)).name == "succeeded"
            failed = (await rig.outcome(blocking)).data
            assert (failed.reason, failed.error.type) == ("timeout", "TimeoutError")
            await eventually(rig.depth_is(1), what="the neighbour is back on its queue")
    assert "failed" not in rig.names(neighbour)
    jobs.gate.set()
    async with rig.worker(jobs.pause):
        assert (await rig.outcome(neighbour)).data.result == "rested"
    assert await rig.depth() == 0


async def test_blocked_time_is_not_charged_to_other_handlers(rig: Rig) -> None:
    async with rig.worker(jobs.blocks_for, jobs.pause):
        neighbour = await rig.submit("pause", {"seconds": 0.8}, timeout=1.0)
        await eventually(lambda: jobs.calls)
        blocking = await rig.submit("blocks-for", {"seconds": 3.0})
        assert (await rig.outcome(neighbour)).data.result == "rested"
        assert (await rig.outcome(blocking)).name == "succeeded"
    assert jobs.calls.count("pause") == 1


async def test_handler_that_waits_too_long_for_loop_runs_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocking handler is within its timeout, so neither it nor the waiting one fails."""
    monkeypatch.setattr(handlers, "CREDIT", 0.5)
    async with rig.worker(jobs.blocks_for, jobs.pause, jobs.quick):
        neighbour = await rig.submit("pause", {"seconds": 0.2}, timeout=0.3)
        await eventually(lambda: jobs.calls)
        blocking = await rig.submit("blocks-for", {"seconds": 4.0}, timeout=30)
        assert (await rig.outcome(neighbour)).data.result == "rested"
        assert (await rig.outcome(blocking)).name == "succeeded"
    assert "failed" not in rig.names(neighbour)
    assert await rig.depth() == 0


@pytest.mark.parametrize("name", ["spin", "sleep", "heedless"])
async def test_handler_that_cannot_be_ended_fails_in_time(rig: Rig, name: str) -> None:
    async with rig.worker(jobs.spin, jobs.sleep, jobs.heedless, jobs.pause, jobs.quick):
        neighbours = [await rig.submit("pause", {"seconds": 1.0}, timeout=20), await rig.submit("quick")]
        failed = (await rig.outcome(await rig.submit(name, timeout=0.3))).data
        assert (failed.reason, failed.error.type) == ("timeout", "TimeoutError")
        assert 0.3 <= failed.duration < 2.5
        assert [(await rig.outcome(job_id)).name for job_id in neighbours] == ["succeeded"] * 2


@pytest.mark.parametrize("name", ["sleep", "heedless"])
async def test_worker_ends_when_all_slots_are_stuck(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It logs each stuck handler, and reports a fault when no slot is left."""
    monkeypatch.setattr(stuck_handlers, "GIVE_UP_AFTER", 1.0)
    monkeypatch.setattr(worker, "WATCH_INTERVAL", 0.2)
    monkeypatch.setattr(stuck_handlers, "LOG_AFTER", 0.1)
    monkeypatch.setattr(stuck_handlers, "REPORT_AFTER", 0.2)
    with pytest.raises(WorkerStuck, match="every slot is taken"):
        async with rig.worker(jobs.sleep, jobs.heedless, jobs.quick, concurrency=2) as stuck:
            late = [await rig.submit(name, timeout=0.2) for _ in range(2)]
            assert {(await rig.outcome(job_id)).data.reason for job_id in late} == {"timeout"}
            await eventually(lambda: "every slot (2) is taken" in str(stuck.fault))
            await eventually(
                lambda: all(f"the handler of job {job_id} ({name}) still runs" in caplog.text for job_id in late)
            )
            waiting = await rig.submit("quick")
            await eventually(rig.depth_is(1), what="the waiting job is given back")
            assert stuck.stuck_handlers == 2
    async with rig.worker(jobs.quick):
        assert (await rig.outcome(waiting)).name == "succeeded"


async def test_concurrency_of_job_type_is_limited(rig: Rig) -> None:
    async with rig.worker(jobs.one_at_a_time, jobs.two_at_a_time, jobs.quick, concurrency=6):
        names = ("one-at-a-time", "two-at-a-time") * 4
        ends = [await rig.submit(name) for name in names]
        await eventually(lambda: len(jobs.calls) == 3)
        quick = await rig.submit("quick")
        assert (await rig.outcome(quick)).name == "succeeded"
        assert sorted(jobs.calls) == ["one-at-a-time", "quick", "two-at-a-time", "two-at-a-time"]
        jobs.gate.set()
        assert {(await rig.outcome(job_id)).name for job_id in ends} == {"succeeded"}


async def test_overdue_delivery_is_given_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that is too long for the acknowledgement timeout may wait for a second."""
    monkeypatch.setattr(worker, "WATCH_INTERVAL", 0.2)
    async with rig.worker(jobs.one_at_a_time, ack_timeout=50.0, grace=0.2) as busy:
        ends = [await rig.submit("one-at-a-time", timeout=30) for _ in range(2)]
        await eventually(lambda: "a delivery has waited" in caplog.text)
        jobs.gate.set()
        assert {(await rig.outcome(job_id)).name for job_id in ends} == {"succeeded"}
        assert busy.fault is None
    assert await rig.depth() == 0


@pytest.mark.parametrize("name", ["grab", "agrab"])
async def test_handler_with_much_memory_fails_no_other_job(rig: Rig, name: str) -> None:
    async with rig.worker(jobs.grab, jobs.agrab, jobs.pause):
        neighbour = await rig.submit("pause", {"seconds": 0.3})
        await eventually(lambda: jobs.calls)
        assert (await rig.outcome(await rig.submit(name, {"mebibytes": 1024}))).data.result == 2**30
        assert (await rig.outcome(neighbour)).name == "succeeded"
