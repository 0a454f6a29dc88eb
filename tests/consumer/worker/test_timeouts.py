"""Handlers that do not end on time, in threads and on the loop: what becomes of them and of their neighbours.

The table of docs/how-to/write-jobs.md. Isolated handlers are in test_isolated, those that kill their worker in
tests/faults/test_poison.
"""

from collections.abc import Iterator

import pytest

from jobtape import JobType
from jobtape.consumer.worker import handlers, worker
from jobtape.schemas.errors import WorkerStuck
from tests.consumer import stubborn_jobs as jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closed until the end, since threads cannot be ended; and nothing takes long to be given up."""
    monkeypatch.setattr(handlers, "LATE", 0.5)
    jobs.gate.clear()
    jobs.calls.clear()
    yield
    jobs.gate.set()


@pytest.mark.parametrize("culprit", [jobs.aspin, jobs.ablock, jobs.child_spins], ids=lambda each: each.name)
async def test_a_handler_that_blocks_the_loop_for_good_fails_and_the_worker_ends(rig: Rig, culprit: JobType) -> None:
    """Its neighbours on the loop go back, that in a thread is finished, and another worker does the rest."""
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


async def test_time_in_which_the_loop_was_blocked_is_not_charged_to_the_neighbours(rig: Rig) -> None:
    async with rig.worker(jobs.blocks_for, jobs.pause):
        neighbour = await rig.submit("pause", {"seconds": 0.8}, timeout=1.0)
        await eventually(lambda: jobs.calls)
        blocking = await rig.submit("blocks-for", {"seconds": 3.0})
        assert (await rig.outcome(neighbour)).data.result == "rested"
        assert (await rig.outcome(blocking)).name == "succeeded"
    assert jobs.calls.count("pause") == 1


async def test_who_waits_too_long_for_a_blocked_loop_is_done_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who blocks is within its time: it is not to be failed, and neither are those who wait for it."""
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
async def test_one_that_cannot_be_ended_fails_on_time_and_hurts_nobody(rig: Rig, name: str) -> None:
    async with rig.worker(jobs.spin, jobs.sleep, jobs.heedless, jobs.pause, jobs.quick):
        neighbours = [await rig.submit("pause", {"seconds": 1.0}, timeout=20), await rig.submit("quick")]
        failed = (await rig.outcome(await rig.submit(name, timeout=0.3))).data
        assert (failed.reason, failed.error.type) == ("timeout", "TimeoutError")
        assert 0.3 <= failed.duration < 2.5
        assert [(await rig.outcome(job_id)).name for job_id in neighbours] == ["succeeded"] * 2


@pytest.mark.parametrize("name", ["sleep", "heedless"])
async def test_a_worker_without_a_place_left_ends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Before that it says so: in its log for each, and as trouble when none is left."""
    monkeypatch.setattr(worker, "STUCK", 1.0)
    monkeypatch.setattr(worker, "WATCH_INTERVAL", 0.2)
    monkeypatch.setattr(worker, "LOG_STUCK_AFTER", 0.1)
    with pytest.raises(WorkerStuck, match="every slot is taken"):
        async with rig.worker(jobs.sleep, jobs.heedless, jobs.quick, concurrency=2) as stuck:
            late = [await rig.submit(name, timeout=0.2) for _ in range(2)]
            assert {(await rig.outcome(job_id)).data.reason for job_id in late} == {"timeout"}
            await eventually(lambda: "every slot (2) is taken" in str(stuck.trouble))
            await eventually(
                lambda: all(f"the handler of job {job_id} ({name}) still runs" in caplog.text for job_id in late)
            )
            waiting = await rig.submit("quick")
            await eventually(rig.depth_is(1), what="what waits is given back")
            assert stuck.stuck_handlers == 2
    async with rig.worker(jobs.quick):
        assert (await rig.outcome(waiting)).name == "succeeded"


async def test_no_more_of_a_type_than_it_allows_and_others_pass(rig: Rig) -> None:
    async with rig.worker(jobs.one_at_a_time, jobs.two_at_a_time, jobs.quick, concurrency=6):
        names = ("one-at-a-time", "two-at-a-time") * 4
        ends = [await rig.submit(name) for name in names]
        await eventually(lambda: len(jobs.calls) == 3)
        quick = await rig.submit("quick")
        assert (await rig.outcome(quick)).name == "succeeded"
        assert sorted(jobs.calls) == ["one-at-a-time", "quick", "two-at-a-time", "two-at-a-time"]
        jobs.gate.set()
        assert {(await rig.outcome(job_id)).name for job_id in ends} == {"succeeded"}


async def test_what_has_waited_too_long_goes_back_before_the_broker_closes_the_channel(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Jobs that are longer than the acknowledgement time-out likes may wait a second."""
    monkeypatch.setattr(worker, "WATCH_INTERVAL", 0.2)
    async with rig.worker(jobs.one_at_a_time, ack_timeout=50.0, grace=0.2) as busy:
        ends = [await rig.submit("one-at-a-time", timeout=30) for _ in range(2)]
        await eventually(lambda: "a delivery has waited" in caplog.text)
        jobs.gate.set()
        assert {(await rig.outcome(job_id)).name for job_id in ends} == {"succeeded"}
        assert busy.trouble is None
    assert await rig.depth() == 0


@pytest.mark.parametrize("name", ["grab", "agrab"])
async def test_a_gigabyte_in_the_worker_hurts_nobody_while_the_system_has_it(rig: Rig, name: str) -> None:
    async with rig.worker(jobs.grab, jobs.agrab, jobs.pause):
        neighbour = await rig.submit("pause", {"seconds": 0.3})
        await eventually(lambda: jobs.calls)
        assert (await rig.outcome(await rig.submit(name, {"mebibytes": 1024}))).data.result == 2**30
        assert (await rig.outcome(neighbour)).name == "succeeded"
