"""What a worker does about cancelled jobs, waiting and running."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jobtape.consumer.worker import cancellations as cancels
from jobtape.schemas.delay_ladder import delay_key
from jobtape.schemas.events import Requeued, RequeuedData, Submitted, cancelled, encode
from jobtape.schemas.fold import evolve
from jobtape.schemas.topology import CANCEL_KEY
from tests.broker.proxy import Proxy
from tests.consumer import isolated_jobs, jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closed_gate")]


async def cancel(rig: Rig, job_id: str) -> None:
    """As the API does it."""
    submission = await eventually(lambda: next(iter(rig.of(job_id)), None))
    assert isinstance(submission, Submitted)
    job = evolve(None, submission)
    await rig.publisher.publish(
        cancelled(job, source=rig.topology.source, time=datetime.now(UTC)), [CANCEL_KEY], timeout=20
    )


async def test_what_was_cancelled_before_the_worker_started_does_not_run(rig: Rig) -> None:
    """Queued, and scheduled: on a worker that starts between the cancelling and the time."""
    queued = await rig.submit("note")
    event = order_event(rig.topology, "note", run_at=datetime.now(UTC) + timedelta(seconds=1.5))
    await rig.publisher.publish(event, [delay_key(1.5, "default", rig.topology.delay_levels)])
    for job_id in (queued, event.subject):
        await cancel(rig, job_id)
    async with rig.worker(jobs.note):
        later = order_event(rig.topology, "note", run_at=datetime.now(UTC) + timedelta(seconds=2))
        await rig.publisher.publish(later, [delay_key(2, "default", rig.topology.delay_levels)])
        await rig.outcome(later.subject)
    assert jobs.calls == [later.subject]
    assert rig.names(queued) == ["submitted", "cancelled"], "nothing is published"
    assert rig.names(event.subject) == ["submitted", "cancelled"]
    assert await rig.depth() == 0


async def test_a_waiting_job_that_is_cancelled_while_the_worker_is_busy_does_not_run(rig: Rig) -> None:
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


async def test_a_running_async_handler_is_cancelled_and_its_place_is_free_when_it_has_ended(rig: Rig) -> None:
    async with rig.worker(jobs.tidies_up, jobs.note, concurrency=1):
        job_id = await rig.submit("tidies-up")
        await eventually(lambda: "started" in rig.names(job_id))
        await cancel(rig, job_id)
        await eventually(lambda: jobs.calls == ["cancelled"], what="the handler gets its CancelledError")
        after = await rig.submit("note")
        await asyncio.sleep(0.2)  # long enough for a wrong start
        assert jobs.calls == ["cancelled"], "it is still tidying up"
        jobs.gate.set()
        await rig.outcome(after)
    assert jobs.calls == ["cancelled", "tidied up", after]
    assert rig.names(job_id) == ["submitted", "started", "cancelled"]
    assert await rig.depth() == 0


async def test_a_thread_runs_to_its_end_keeps_its_place_and_says_nothing(rig: Rig) -> None:
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


async def test_an_isolated_handler_is_killed(rig: Rig) -> None:
    async with rig.worker(isolated_jobs.pid, isolated_jobs.add, concurrency=1):
        job_id = await rig.submit("iso.pid", {"nap": 60})
        await eventually(lambda: "started" in rig.names(job_id))
        await cancel(rig, job_id)
        after = await rig.submit("iso.add", {"x": 1, "y": 1})
        assert (await rig.outcome(after)).name == "succeeded", "its place is free"
    assert rig.names(job_id) == ["submitted", "started", "cancelled"]
    assert await rig.depth() == 0


async def test_the_run_after_a_cancelled_one_runs(rig: Rig) -> None:
    event = order_event(rig.topology, "note")
    await rig.publisher.publish(event, ["run.default"])
    await cancel(rig, event.subject)
    data = {"job_type": "note", "run": 2, "attempt": 1, "n": 1, "why": "redriven", "order": event.data.order}
    again = Requeued(
        id=f"{event.subject}/2/requeued/1",
        source=rig.topology.source,
        subject=event.subject,
        time=datetime.now(UTC),
        data=RequeuedData(**data),
    )
    async with rig.worker(jobs.note):
        await rig.publisher.publish(again, ["run.default"])
        assert (await rig.outcome(event.subject)).name == "cancelled"
        await eventually(lambda: "succeeded" in rig.names(event.subject))
    assert jobs.calls == [event.subject]


async def test_a_lost_job_whose_cancelling_is_not_on_the_tape_gets_it_there(rig: Rig) -> None:
    """The broker died between the two streams: workers know of the cancelling, the tape does not."""
    event = order_event(rig.topology, "note")
    await rig.publisher.publish(event, ["run.default"])
    cancelling = cancelled(evolve(None, event), source=rig.topology.source, time=datetime.now(UTC))
    data = {"job_type": "note", "run": 1, "attempt": 1, "n": 2, "why": "lost", "order": event.data.order}
    found = Requeued(
        id=f"{event.subject}/1/requeued/2",
        source=rig.topology.source,
        subject=event.subject,
        time=datetime.now(UTC),
        data=RequeuedData(**data),
    )
    await _put_on_the_stream(rig, encode(cancelling))
    async with rig.worker(jobs.note):
        await eventually(rig.depth_is(0))
        await rig.publisher.publish(found, ["run.default"])
        assert (await rig.outcome(event.subject)).id == cancelling.id
    assert jobs.calls == []


async def test_messages_that_are_no_cancelling_are_passed_over(rig: Rig) -> None:
    for body in (b"marker of somebody", b"{}", b"\xff", encode(order_event(rig.topology, "note"))):
        await _put_on_the_stream(rig, body)
    async with rig.worker(jobs.note):
        await rig.outcome(await rig.submit("note"))


async def test_it_goes_on_after_a_lost_connection_and_hears_what_it_missed(rig: Rig) -> None:
    async with Proxy(rig.url) as proxy:
        direct, rig.url = rig.url, proxy.url
        async with rig.worker(jobs.ahold, jobs.note) as worker:
            rig.url = direct
            job_id = await rig.submit("ahold")
            await eventually(lambda: "started" in rig.names(job_id))
            proxy.cut()
            await cancel(rig, job_id)
            await eventually(lambda: worker._cancels.runs.has(job_id, 1), what="it hears of it")
            await eventually(lambda: worker.trouble is None)
            await rig.outcome(await rig.submit("note"))
    assert "succeeded" not in rig.names(job_id)
    await eventually(rig.depth_is(0))


async def test_a_deleted_stream_is_made_anew_and_followed_from_its_first_message(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancels, "SILENCE", 1.0)
    async with rig.worker(jobs.ahold, jobs.note) as worker:
        before = await rig.submit("note", queue="default")
        await cancel(rig, before)
        running = await rig.submit("ahold")
        await eventually(lambda: "started" in rig.names(running))
        channel = await (await rig.link.connection()).channel()
        async with channel:
            await channel.queue_delete(rig.topology.cancels.name)
        await eventually(lambda: _there(rig), what="the worker made it again")

        async def received() -> bool:  # it is there before it is bound: ask again, as a client may
            await cancel(rig, running)
            return worker._cancels.runs.has(running, 1)

        await eventually(received, what="it hears of it")
        assert worker._cancels.runs.has(before, 1), "what it knew it still knows"


async def _there(rig: Rig) -> bool:
    from jobtape.broker import declare

    return await declare.depth(await rig.link.connection(), rig.topology.cancels.name) is not None


async def _put_on_the_stream(rig: Rig, body: bytes) -> None:
    from jobtape.broker.publisher import ExchangePublisher

    await ExchangePublisher(rig.link, "").publish(body, rig.topology.cancels.name)
