"""A handler keeps its slot as long as it runs, even after its outcome was published."""

import pytest

from jobtape.consumer.worker.handlers import handlers
from tests.consumer import jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closed_gate")]


async def test_handlers_do_not_exceed_slots(rig: Rig) -> None:
    async with rig.worker(jobs.hold, jobs.ahold, concurrency=3):
        ends = [await rig.submit(name) for name in ("hold", "ahold") * 3]
        await eventually(lambda: len(jobs.calls) == 3)
        marker = len(rig.events)
        await eventually(lambda: [e.name for e in rig.events].count("started") == 3)
        assert len(jobs.calls) == 3, marker
        jobs.gate.set()
        assert [(await rig.outcome(job_id)).name for job_id in ends] == ["succeeded"] * 6


async def test_prefetch_is_limited(rig: Rig) -> None:
    """A delivery that waits in the worker uses up its acknowledgement timeout."""
    async with rig.worker(jobs.ahold, concurrency=1):
        ends = [await rig.submit("ahold") for _ in range(6)]
        await eventually(lambda: len(jobs.calls) == 1)
        await eventually(lambda: "started" in rig.names(jobs.calls[0]))
        await eventually(rig.depth_is(4), what="one runs, one waits")
        await rig.read_to_end()
        assert await rig.depth() == 4
        jobs.gate.set()
        for job_id in ends:
            await rig.outcome(job_id)


async def keeps_the_only_slot(rig: Rig, job_type: str) -> str:
    """Run a handler past its timeout, and check that the next job waits until the handler has ended."""
    late = await rig.submit(job_type, timeout=0.2)
    assert (await rig.outcome(late)).data.reason == "timeout"
    waiting = await rig.submit("note")
    with pytest.raises(AssertionError):
        await rig.outcome(waiting, timeout=0.5)
    jobs.gate.set()
    assert (await rig.outcome(waiting)).name == "succeeded"
    return late


async def test_thread_past_timeout_keeps_slot(rig: Rig) -> None:
    async with rig.worker(jobs.hold, jobs.note, concurrency=1):
        late = await keeps_the_only_slot(rig, "hold")
    assert rig.names(late) == ["submitted", "started", "failed"]


async def test_async_handler_that_ignores_cancel_keeps_slot(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "LONGEST_DELAY", 0.3)
    async with rig.worker(jobs.heedless, jobs.note, concurrency=1):
        await keeps_the_only_slot(rig, "heedless")
