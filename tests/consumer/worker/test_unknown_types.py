"""Jobs that a worker cannot run: of a type that only others know, or with a payload that does not fit any more."""

from collections.abc import Iterator
from typing import Any

import pytest

from jobtape import JobType, RetryPolicy
from jobtape.consumer.worker.execution import Execution
from jobtape.schemas.events import Deferred, encode, placement
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the first delay."""
    monkeypatch.setattr(placement, "SHORTEST_WAIT", 0.1)
    jobs.calls.clear()
    yield


async def test_unknown_type_is_deferred_without_attempt(folded_rig: Rig) -> None:
    """A rolling deployment: at first only an old worker runs, then also a new one."""
    rig = folded_rig
    async with rig.worker(jobs.add) as old:
        job_id = await rig.submit("note", max_attempts=1)
        known = await rig.submit("add", {"x": 1, "y": 1})
        await rig.outcome(known)
        await eventually(lambda: rig.names(job_id).count("deferred") >= 2, what="it is deferred again")
        async with rig.worker(jobs.add, jobs.note):
            rig.stop(old.name)  # otherwise the old worker may get the job each time
            outcome = await rig.outcome(job_id)
    assert (outcome.name, outcome.data.attempt) == ("succeeded", 1)
    assert set(rig.steps(job_id)) == {"submitted", "deferred", "placed", "succeeded"}
    deferrals = [event for event in rig.of(job_id) if isinstance(event, Deferred)]
    assert {event.data.reason for event in deferrals} == {"unknown_type"}
    assert len({event.data.since for event in deferrals}) == 1
    assert jobs.calls == [job_id]


async def test_event_of_newer_version_is_deferred(folded_rig: Rig) -> None:
    rig = folded_rig
    event = order_event(rig.topology, "note")
    await rig.publisher.publish(event)
    future = encode(event).replace(b'"schemaversion":2', b'"schemaversion":9')
    await rig.put(future)
    async with rig.worker(jobs.note):
        assert (await rig.outcome(event.subject)).name == "succeeded", "what the projector placed is of this version"
    assert rig.steps(event.subject) == ["submitted", "deferred", "placed", "succeeded"]
    await rig.put(future)
    async with rig.worker(jobs.note, unknown_type_timeout=0.0):
        await eventually(rig.nothing_on(rig.topology.dead_queue.name))
        await eventually(rig.depth_is(0))
    assert jobs.calls == [event.subject]


async def test_unknown_type_fails_after_timeout(folded_rig: Rig) -> None:
    rig = folded_rig
    async with rig.worker(jobs.add, unknown_type_timeout=0.5):
        job_id = await rig.submit("note")
        outcome = await rig.outcome(job_id)
    assert (outcome.name, outcome.data.reason) == ("failed", "unknown_type")
    assert (outcome.time - rig.of(job_id)[0].time).total_seconds() >= 0.5
    assert "--jobs / JOBTAPE_JOBS" in outcome.data.error.message
    assert await rig.depth() == 0


async def test_payload_that_no_longer_fits_is_not_retried(rig: Rig) -> None:
    async def new_add(x: int, y: int, z: int) -> int:
        return x + y + z

    async with rig.worker(JobType(new_add, "add", retry=RetryPolicy(max_attempts=5))):
        outcome = await rig.outcome(await rig.submit("add", {"x": 1, "y": 1}, max_attempts=5))
    assert (outcome.name, outcome.data.reason, outcome.data.attempt) == ("failed", "payload_invalid", 1)
    assert "z" in outcome.data.error.message
    assert await rig.depth() == 0


async def test_error_in_worker_gives_delivery_back_and_frees_slot(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Execution.run
    broken = 1  # after two the job would be a suspect and run in a process

    async def run_or_break(self: Execution, *args: Any) -> Any:
        nonlocal broken
        if broken:
            broken -= 1
            raise KeyError("an error in the worker")
        return await run(self, *args)

    monkeypatch.setattr(Execution, "run", run_or_break)
    monkeypatch.setattr("jobtape.consumer.worker.worker.BROKEN_PAUSE", 0.05)
    async with rig.worker(jobs.note, concurrency=1):
        job_id = await rig.submit("note")
        assert (await rig.outcome(job_id)).name == "succeeded"
    assert jobs.calls == [job_id]
    assert caplog.text.count("KeyError: 'an error in the worker'") == 1
    assert await rig.depth() == 0
