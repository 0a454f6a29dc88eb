"""Concurrency: a slot is taken as long as a handler runs, whatever is known of its outcome."""

import pytest

from jobtape.consumer.worker import handlers
from tests.consumer import jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closed_gate")]


async def test_no_more_handlers_than_slots(rig: Rig) -> None:
    async with rig.worker(jobs.hold, jobs.ahold, concurrency=3):
        ends = [await rig.submit(name) for name in ("hold", "ahold") * 3]
        await eventually(lambda: len(jobs.calls) == 3)
        marker = len(rig.events)
        await eventually(lambda: [e.name for e in rig.events].count("started") == 3)
        assert len(jobs.calls) == 3, marker
        jobs.gate.set()
        assert [(await rig.outcome(job_id)).name for job_id in ends] == ["succeeded"] * 6


async def test_no_more_deliveries_are_taken_than_can_begin_soon(rig: Rig) -> None:
    """What waits in a worker counts against the broker's acknowledgement time-out, at most one job's length."""
    async with rig.worker(jobs.ahold, concurrency=1):
        ends = [await rig.submit("ahold") for _ in range(6)]
        await eventually(lambda: len(jobs.calls) == 1)
        await eventually(lambda: "started" in rig.names(jobs.calls[0]))
        assert await rig.depth() == 4, "one runs, one waits"
        jobs.gate.set()
        for job_id in ends:
            await rig.outcome(job_id)


async def keeps_the_only_slot(rig: Rig, job_type: str) -> str:
    """A job that goes on past its time-out: its outcome is known, and the next one waits until it has ended."""
    late = await rig.submit(job_type, timeout=0.2)
    assert (await rig.outcome(late)).data.reason == "timeout"
    waiting = await rig.submit("note")
    with pytest.raises(AssertionError):
        await rig.outcome(waiting, timeout=0.5)
    jobs.gate.set()
    assert (await rig.outcome(waiting)).name == "succeeded"
    return late


async def test_a_thread_past_its_time_out_keeps_its_slot(rig: Rig) -> None:
    async with rig.worker(jobs.hold, jobs.note, concurrency=1):
        late = await keeps_the_only_slot(rig, "hold")
    assert rig.names(late) == ["submitted", "started", "failed"]


async def test_a_handler_that_heeds_no_cancelling_is_given_up_and_keeps_its_slot(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "LATE", 0.3)
    async with rig.worker(jobs.heedless, jobs.note, concurrency=1):
        await keeps_the_only_slot(rig, "heedless")
