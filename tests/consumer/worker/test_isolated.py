"""Isolated handlers: what they return and log, how they end, and that nothing of them is left."""

import os
from pathlib import Path

import pytest

from jobtape.schemas.events import Progressed
from tests.cli.programs import alive
from tests.consumer import isolated_jobs as jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_outcomes_are_as_in_the_worker(rig: Rig) -> None:
    async with rig.worker(jobs.add, jobs.aadd, jobs.boom, jobs.strict, jobs.large, max_result=1000):
        for name in ("iso.add", "iso.aadd"):
            outcome = await rig.outcome(await rig.submit(name, {"x": 3, "y": 4}))
            assert (outcome.name, outcome.data.result) == ("succeeded", 7)
        error = (await rig.outcome(await rig.submit("iso.boom"))).data
        assert (error.reason, error.error.type, error.error.message) == ("error", "ValueError", "bang")
        first = error.error.traceback.splitlines()[1]
        assert "isolated_jobs.py" in first, "the traceback begins with the handler"
        wrong = (await rig.outcome(await rig.submit("iso.strict", {"n": "many"}))).data
        assert (wrong.reason, "n:" in wrong.error.message) == ("payload_invalid", True)
        assert (await rig.outcome(await rig.submit("iso.large", {"n": 2000}))).data.reason == "result_too_large"


async def test_progress_log_and_output_reach_worker(
    rig: Rig, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with rig.worker(jobs.steps):
        job_id = await rig.submit("iso.steps", {"words": "zażółć"})
        outcome = await rig.outcome(job_id)
    assert outcome.data.result == f"{job_id}/1 1"
    reports = [event.data.fraction for event in rig.of(job_id) if isinstance(event, Progressed)]
    assert reports == [0.25, 0.75]
    assert [getattr(record, "job_id", None) for record in caplog.records if record.getMessage() == "logged zażółć"] == [
        job_id
    ]
    assert "printed zażółć" in capfd.readouterr().out


async def test_process_is_used_for_many_jobs(rig: Rig) -> None:
    async with rig.worker(jobs.pid, concurrency=1):
        pids = {(await rig.outcome(await rig.submit("iso.pid"))).data.result for _ in range(5)}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert not alive(pids.pop()), "it ends with its worker"


async def test_one_process_for_each_slot(rig: Rig, tmp_path: Path) -> None:
    async with rig.worker(jobs.meet, concurrency=3):
        ends = [await rig.submit("iso.meet", {"folder": str(tmp_path), "processes": 3}) for _ in range(6)]
        pids = {(await rig.outcome(job_id)).data.result for job_id in ends}
    assert len(pids) == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [("iso.segfault", "SIGSEGV"), ("iso.killed", "SIGKILL")],
)
async def test_crashed_process_fails_job(rig: Rig, name: str, says: str) -> None:
    async with rig.worker(jobs.segfault, jobs.killed, jobs.add):
        failed = (await rig.outcome(await rig.submit(name))).data
        assert (failed.reason, failed.error.type) == ("crashed", "Crashed")
        assert says in failed.error.message
        assert (await rig.outcome(await rig.submit("iso.add", {"x": 1, "y": 1}))).name == "succeeded"


async def test_crashed_process_is_retried_by_policy(folded_rig: Rig, tmp_path: Path) -> None:
    rig = folded_rig  # further attempts are placed by a projector
    async with rig.worker(jobs.exits):
        job_id = await rig.submit("iso.exit", max_attempts=3)
        failed = (await rig.outcome(job_id)).data
        assert (failed.reason, failed.attempt) == ("crashed", 3)
        assert "exit code 7" in failed.error.message
        names = [name for name in rig.names(job_id) if name not in ("started", "placed")]
        assert names == ["submitted", *["retrying"] * 2, "failed"]
        later = await rig.submit("iso.exit", {"path": str(tmp_path / "once")}, max_attempts=3)
        outcome = await rig.outcome(later)
        assert (outcome.name, outcome.data.attempt, outcome.data.result) == ("succeeded", 2, "at last")


@pytest.mark.parametrize("name", ["iso.spin", "iso.aspin", "iso.sleep", "iso.heedless"])
async def test_process_is_killed_at_timeout(rig: Rig, name: str) -> None:
    types = (jobs.spin, jobs.aspin, jobs.sleep, jobs.heedless, jobs.add)
    async with rig.worker(*types, concurrency=2):
        await rig.outcome(await rig.submit("iso.add", {"x": 1, "y": 1}))  # a process is ready
        job_id = await rig.submit(name, timeout=0.5)
        failed = (await rig.outcome(job_id)).data
        assert (failed.reason, failed.error.type) == ("timeout", "TimeoutError")
        assert 0.5 <= failed.duration < 1.5
        assert (await rig.outcome(await rig.submit("iso.add", {"x": 1, "y": 1}))).name == "succeeded"


@pytest.mark.parametrize("name", ["iso.big", "iso.abig"])
async def test_memory_beyond_limit_fails_job(rig: Rig, name: str) -> None:
    async with rig.worker(jobs.big, jobs.abig):
        assert (await rig.outcome(await rig.submit(name, {"mebibytes": 100}))).name == "succeeded"
        failed = (await rig.outcome(await rig.submit(name, {"mebibytes": 1024}))).data
        assert (failed.reason, failed.error.type) == ("error", "MemoryError")
        assert (await rig.outcome(await rig.submit(name, {"mebibytes": 100}))).name == "succeeded"


async def test_descendants_are_killed_with_process(rig: Rig, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with rig.worker(jobs.family):
        job_id = await rig.submit("iso.family", {"path": str(pids)}, timeout=1.5)
        assert (await rig.outcome(job_id)).data.reason == "timeout"
        written = [int(line) for line in pids.read_text().split()]
        assert len(written) == 2, "the child and the daemon"
        await eventually(lambda: not any(map(alive, written)))


async def test_stopping_worker_kills_late_process(rig: Rig) -> None:
    async with rig.worker(jobs.pid, grace=0.2):
        job_id = await rig.submit("iso.pid", {"nap": 60})
        await eventually(lambda: "started" in rig.names(job_id))
    await eventually(rig.depth_is(1), what="it is back on its queue")
    assert rig.names(job_id) == ["submitted", "started"]
