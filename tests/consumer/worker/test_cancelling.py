"""What a worker does with cancelled jobs that wait or run."""

import asyncio
from datetime import UTC, datetime

import pytest

from jobtape.broker import declare
from jobtape.broker.publisher import ExchangePublisher
from jobtape.consumer.worker import cancellations
from jobtape.schemas.events import Placed, PlacedData, Submitted, encode
from jobtape.schemas.events.interventions import cancelled
from jobtape.schemas.fold import evolve
from jobtape.schemas.topology import CANCEL_KEY
from tests.broker.proxy import Proxy
from tests.consumer import isolated_jobs, jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closed_gate")]


async def cancel(rig: Rig, job_id: str) -> None:
    """Publish what the API publishes to cancel a job."""
    submission = await eventually(lambda: next(iter(rig.of(job_id)), None))
    assert isinstance(submission, Submitted)
    job = evolve(None, submission)
    await rig.publisher.publish(
        cancelled(job, source=rig.topology.source, time=datetime.now(UTC)), [CANCEL_KEY], timeout=20
    )


def placed(event: Submitted, *, run: int, n: int, why: str) -> Placed:
    """Return the event that places the work again."""
    data = {"job_type": "note", "run": run, "attempt": 1, "n": n, "why": why, "order": event.data.order}
    return Placed(
        id=f"{event.subject}/{run}/1/placed/{n}",
        source=event.source,
        subject=event.subject,
        time=datetime.now(UTC),
        data=PlacedData(**data),
    )


async def test_job_cancelled_before_worker_started_does_not_run(rig: Rig) -> None:
    queued = await rig.submit("note")
    await cancel(rig, queued)
    async with rig.worker(jobs.note):
        later = await rig.submit("note")
        await rig.outcome(later)
    assert jobs.calls == [later]
    assert rig.names(queued) == ["submitted", "cancelled"], "nothing is published"
    assert await rig.depth() == 0


async def test_job_cancelled_while_worker_is_busy_does_not_run(rig: Rig) -> None:
    async with rig.worker(jobs.ahold, jobs.note, concurrency=1):
        first = await rig.submit("ahold")
        await eventually(lambda: jobs.calls == [first])
        waiting = await rig.submit("note")
        await cancel(rig, waiting)
        await cancel(rig, waiting)
        marked = await rig.submit("ahold")
        await cancel(rig, marked)
        jobs.gate.set()
        await rig.outcome(first)
        last = await rig.submit("note")
        await rig.outcome(last)
    assert jobs.calls == [first, last]
    assert await rig.depth() == 0


async def test_cancelled_async_handler_keeps_slot_until_it_has_ended(rig: Rig) -> None:
    async with rig.worker(jobs.tidies_up, jobs.note, concurrency=1):
        job_id = await rig.submit("tidies-up")
        await eventually(lambda: "started" in rig.names(job_id))
        await cancel(rig, job_id)
        await eventually(lambda: jobs.calls == ["cancelled"], what="the handler gets its CancelledError")
        after = await rig.submit("note")
        await asyncio.sleep(0.2)  # long enough for a wrong start
        assert jobs.calls == ["cancelled"], "the handler still runs"
        jobs.gate.set()
        await rig.outcome(after)
    assert jobs.calls == ["cancelled", "tidied up", after]
    assert rig.names(job_id) == ["submitted", "started", "cancelled"]
    assert await rig.depth() == 0


async def test_cancelled_thread_keeps_slot_and_publishes_no_outcome(rig: Rig) -> None:
    async with rig.worker(jobs.hold, jobs.note, concurrency=1):
        job_id = await rig.submit("hold")
        await eventually(lambda: "started" in rig.names(job_id))
        await cancel(rig, job_id)
        after = await rig.submit("note")
        await eventually(lambda: "cancelled" in rig.names(job_id))
        await asyncio.sleep(0.2)  # long enough for a wrong start
        assert jobs.calls == [job_id]
        jobs.gate.set()
        await rig.outcome(after)
    assert rig.names(job_id) == ["submitted", "started", "cancelled"]
    assert await rig.depth() == 0


async def test_cancelled_isolated_handler_is_killed(rig: Rig) -> None:
    async with rig.worker(isolated_jobs.pid, isolated_jobs.add, concurrency=1):
        job_id = await rig.submit("iso.pid", {"nap": 60})
        await eventually(lambda: "started" in rig.names(job_id))
        await cancel(rig, job_id)
        after = await rig.submit("iso.add", {"x": 1, "y": 1})
        assert (await rig.outcome(after)).name == "succeeded", "its slot is free"
    assert rig.names(job_id) == ["submitted", "started", "cancelled"]
    assert await rig.depth() == 0


async def test_run_after_a_cancelled_run_is_executed(rig: Rig) -> None:
    event = order_event(rig.topology, "note")
    await rig.publisher.publish(event, ["run.default"])
    await cancel(rig, event.subject)
    again = placed(event, run=2, n=1, why="due")
    async with rig.worker(jobs.note):
        await rig.publisher.publish(again, ["run.default"])
        assert (await rig.outcome(event.subject)).name == "cancelled"
        await eventually(lambda: "succeeded" in rig.names(event.subject))
    assert jobs.calls == [event.subject]


async def test_cancelled_event_that_the_tape_lost_is_published_again(rig: Rig) -> None:
    """The broker died between two writes: the stream of cancellations has the event, the tape does not."""
    event = order_event(rig.topology, "note")
    await rig.publisher.publish(event, ["run.default"])
    cancelling = cancelled(evolve(None, event), source=rig.topology.source, time=datetime.now(UTC))
    found = placed(event, run=1, n=2, why="lost")
    await _put_on_cancel_stream(rig, encode(cancelling))
    async with rig.worker(jobs.note):
        await eventually(rig.depth_is(0))
        await rig.publisher.publish(found, ["run.default"])
        assert (await rig.outcome(event.subject)).id == cancelling.id
    assert jobs.calls == []


async def test_other_messages_on_the_cancel_stream_are_ignored(rig: Rig) -> None:
    for body in (b"marker of another worker", b"{}", b"\xff", encode(order_event(rig.topology, "note"))):
        await _put_on_cancel_stream(rig, body)
    async with rig.worker(jobs.note):
        await rig.outcome(await rig.submit("note"))


async def test_cancellation_during_lost_connection_is_read_later(rig: Rig) -> None:
    async with Proxy(rig.url) as proxy:
        direct, rig.url = rig.url, proxy.url
        async with rig.worker(jobs.ahold, jobs.note) as worker:
            rig.url = direct
            job_id = await rig.submit("ahold")
            await eventually(lambda: "started" in rig.names(job_id))
            proxy.cut()
            await cancel(rig, job_id)
            await eventually(
                lambda: worker._cancellations.runs.has(job_id, 1), what="the worker reads the cancellation"
            )
            await eventually(lambda: worker.fault is None)
            await rig.outcome(await rig.submit("note"))
    assert "succeeded" not in rig.names(job_id)
    await eventually(rig.depth_is(0))


async def test_deleted_cancel_stream_is_declared_again_and_followed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellations, "SILENCE", 1.0)
    async with rig.worker(jobs.ahold, jobs.note) as worker:
        before = await rig.submit("note", queue="default")
        await cancel(rig, before)
        running = await rig.submit("ahold")
        await eventually(lambda: "started" in rig.names(running))
        channel = await (await rig.link.connection()).channel()
        async with channel:
            await channel.queue_delete(rig.topology.cancels.name)
        await eventually(lambda: _stream_exists(rig), what="the worker declares the stream again")

        async def received() -> bool:  # the stream exists before it is bound: cancel again, as a client may
            await cancel(rig, running)
            return worker._cancellations.runs.has(running, 1)

        await eventually(received, what="the worker reads the cancellation")
        assert worker._cancellations.runs.has(before, 1), "cancellations of the old stream are kept"


async def _stream_exists(rig: Rig) -> bool:
    return await declare.depth(await rig.link.connection(), rig.topology.cancels.name) is not None


async def _put_on_cancel_stream(rig: Rig, body: bytes) -> None:
    await ExchangePublisher(rig.link, "").publish(body, rig.topology.cancels.name)
