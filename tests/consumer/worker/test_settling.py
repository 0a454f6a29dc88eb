"""When deliveries are acknowledged, and what happens with redeliveries."""

import pytest

from jobtape.broker.publisher import REASON_HEADER
from jobtape.schemas.events import Placed, PlacedData, encode
from tests.broker.proxy import Proxy
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closed_gate")]


async def test_redelivery_of_finished_attempt_is_acked_and_not_run(rig: Rig) -> None:
    event = order_event(rig.topology, "note")
    async with rig.worker(jobs.note):
        await rig.put(encode(event))
        await rig.outcome(event.subject)
        for _ in range(20):
            await rig.put(encode(event))
        last = await rig.submit("note")
        await rig.outcome(last)
    assert jobs.calls == [event.subject, last]
    assert await rig.depth() == 0


async def test_attempt_placed_again_is_run_again(rig: Rig) -> None:
    """The tape has lost the outcome of the first execution."""
    event = order_event(rig.topology, "note")
    again = Placed(
        id="again",
        source=event.source,
        subject=event.subject,
        time=event.time,
        data=PlacedData(run=1, attempt=1, job_type="note", n=2, why="lost", order=event.data.order),
    )
    async with rig.worker(jobs.note):
        await rig.put(encode(event))
        await rig.outcome(event.subject)
        await rig.put(encode(again))
        await eventually(lambda: jobs.calls == [event.subject] * 2)
        await eventually(lambda: rig.names(event.subject).count("succeeded") == 2)
        await rig.put(encode(again))
        last = await rig.submit("note")
        await rig.outcome(last)
    assert jobs.calls == [event.subject, event.subject, last]
    assert await rig.depth() == 0


async def test_redelivery_during_execution_waits_for_it(rig: Rig) -> None:
    event = order_event(rig.topology, "ahold")
    async with rig.worker(jobs.ahold, jobs.note):
        await rig.put(encode(event))
        await eventually(lambda: jobs.calls)
        await rig.put(encode(event))
        await rig.outcome(await rig.submit("note"))
        assert await rig.depth() == 0, "the copy is with the worker"
        jobs.gate.set()
        await rig.outcome(event.subject)
    assert jobs.calls.count(event.subject) == 1
    assert rig.names(event.subject).count("succeeded") == 1
    assert await rig.depth() == 0, "both are settled"


@pytest.mark.parametrize("reset", [False, True])
async def test_lost_connection_runs_no_job_twice(rig: Rig, reset: bool) -> None:
    async with Proxy(rig.url) as proxy:
        direct, rig.url = rig.url, proxy.url
        async with rig.worker(jobs.ahold, jobs.hold, concurrency=6) as worker:
            rig.url = direct
            ends = [await rig.submit(name) for name in ("hold", "ahold") * 3]
            await eventually(lambda: len(jobs.calls) == 6)
            proxy.cut(reset=reset)
            await eventually(lambda: worker.fault is not None, what="the loss is noticed")
            await eventually(lambda: worker.fault is None, what="jobs are taken again")
            jobs.gate.set()
            for job_id in ends:
                await rig.outcome(job_id)
    assert sorted(jobs.calls) == sorted(ends)
    assert await rig.depth() == 0


async def test_lost_confirm_republishes_outcome_without_new_run(rig: Rig) -> None:
    async with Proxy(rig.url) as proxy:
        direct, rig.url = rig.url, proxy.url
        async with rig.worker(jobs.ahold, jobs.note) as worker:
            rig.url = direct
            job_id = await rig.submit("ahold")
            await eventually(lambda: "started" in rig.names(job_id))
            proxy.hold_answers = True
            jobs.gate.set()
            await rig.outcome(job_id)
            proxy.cut()
            proxy.hold_answers = False
            await eventually(lambda: rig.names(job_id).count("succeeded") == 2, what="the outcome once more")
            await eventually(lambda: worker.fault is None)
            await rig.outcome(await rig.submit("note"))  # behind the redelivery
    assert len({event.id for event in rig.of(job_id) if event.name == "succeeded"}) == 1, "the same fact"
    assert jobs.calls.count(job_id) == 1
    assert await rig.depth() == 0


async def test_outcome_waits_for_missing_tape(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async with rig.worker(jobs.ahold):
        job_id = await rig.submit("ahold")
        await eventually(lambda: jobs.calls)
        await rig.delete_tape()
        jobs.gate.set()
        await eventually(
            lambda: f"outcome of {job_id} could not be published" in caplog.text,
            what="the worker says that the outcome waits",
        )
        await rig.create_tape()
        assert (await rig.outcome(job_id)).name == "succeeded"
    assert jobs.calls == [job_id]
    assert await rig.depth() == 0


async def test_worker_stopped_without_tape_gives_job_back(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    jobs.gate.set()
    async with rig.worker(jobs.ahold, grace=0.2):
        await rig.delete_tape()
        event = order_event(rig.topology, "ahold")
        await rig.put(encode(event))
        await eventually(
            lambda: f"outcome of {event.subject} could not be published" in caplog.text, what="the outcome waits"
        )
    await eventually(rig.depth, what="the job is back on its queue")
    await rig.create_tape()
    async with rig.worker(jobs.ahold):
        await rig.outcome(event.subject)
    assert await rig.depth() == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "not JSON"), (b"{", "not JSON"), (b"[1]", "a JSON list"), (b"\xff\x00", "not JSON"), (b"{}", "type")],
)
async def test_message_that_is_no_event_goes_to_dead_queue(rig: Rig, body: bytes, reason: str) -> None:
    async with rig.worker(jobs.add):
        await rig.put(body)
        found = await eventually(rig.dead, what="it is on the dead queue")
        after = await rig.outcome(await rig.submit("add", {"x": 1, "y": 1}))
    assert found[0] == body
    assert reason in str(found[1][REASON_HEADER])
    assert after.name == "succeeded"
    assert await rig.depth() == 0


async def test_event_that_places_no_work_goes_to_dead_queue(rig: Rig) -> None:
    async with rig.worker(jobs.add):
        outcome = await rig.outcome(await rig.submit("add", {"x": 1, "y": 1}))
        await rig.put(encode(outcome))
        found = await eventually(rig.dead)
    assert found[1][REASON_HEADER] == "a succeeded event on a work queue"


async def test_deleted_work_queue_is_declared_and_consumed_again(rig: Rig) -> None:
    async with rig.worker(jobs.add, jobs.ahold) as worker:
        running = await rig.submit("ahold")
        await eventually(lambda: jobs.calls)
        channel = await (await rig.link.connection()).channel()
        await channel.queue_delete(rig.topology.work_queue("default").name)
        await eventually(rig.consumers, what="the worker is back")
        assert (await rig.outcome(await rig.submit("add", {"x": 1, "y": 1}))).name == "succeeded"
        jobs.gate.set()
        assert (await rig.outcome(running)).name == "succeeded"
        await eventually(lambda: worker.fault is None)
