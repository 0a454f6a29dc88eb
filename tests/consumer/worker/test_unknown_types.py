"""Jobs that a worker cannot run: of a type that only others know, or with a payload that does not fit any more."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from jobtape import JobType, RetryPolicy
from jobtape.consumer.worker import deferral
from jobtape.consumer.worker.execution import Execution
from jobtape.schemas.events import encode
from jobtape.schemas.topology import Topology
from tests.consumer import jobs
from tests.consumer.installation import Rig, order_event
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the first delay."""
    monkeypatch.setattr(deferral, "FIRST_DELAY", 0.1)
    jobs.calls.clear()
    yield


async def on_the_queue(rig: Rig) -> tuple[bytes, Mapping[str, Any]]:
    """Take the next message from the work queue."""
    channel = await (await rig.link.connection()).channel()
    async with channel:
        queue = await channel.get_queue(rig.topology.work_queue("default").name, ensure=False)

        async def get() -> tuple[bytes, Mapping[str, Any]] | None:
            message = await queue.get(no_ack=True, fail=False)
            return None if message is None else (message.body, message.headers)

        return await eventually(get, what="a message on the work queue")


async def test_unknown_type_is_deferred_without_attempt(rig: Rig) -> None:
    """A rolling deployment: at first only an old worker runs, then also a new one."""
    async with rig.worker(jobs.add) as old:
        job_id = await rig.submit("note", max_attempts=1)
        known = await rig.submit("add", {"x": 1, "y": 1})
        await rig.outcome(known)
        await eventually(rig.depth_is(0))
        assert rig.names(job_id) == ["submitted"], "no tape event"
        async with rig.worker(jobs.add, jobs.note):
            rig.stop(old.name)  # otherwise the old worker may get the job each time
            outcome = await rig.outcome(job_id)
    assert (outcome.name, outcome.data.attempt) == ("succeeded", 1)
    assert rig.names(job_id) == ["submitted", "succeeded"]
    assert jobs.calls == [job_id]


async def test_deferrals_are_counted_in_header(rig: Rig) -> None:
    event = order_event(rig.topology, "note")
    await rig.put(encode(event))
    async with rig.worker(jobs.add):
        await eventually(rig.depth_is(0))
    body, first = await on_the_queue(rig)
    assert body == encode(event)
    assert first[deferral.COUNT_HEADER] == 1
    async with rig.worker(jobs.add) as worker:
        await rig.put(body)
        await eventually(rig.depth_is(0))
        assert worker.trouble is None


async def test_deferral_delay_grows_to_one_minute(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []

    async def publish(_: object, body: bytes, key: str, **more: Any) -> None:
        keys.append(key)

    monkeypatch.setattr(deferral, "FIRST_DELAY", 1.0)
    monkeypatch.setattr("jobtape.broker.publisher.ExchangePublisher.publish", publish)
    sender = deferral.Deferral(rig.link, Topology("ns"), timeout=3600, now=lambda: order_event(rig.topology, "x").time)
    for count in (0, 1, 2, 5, 6, 2**31):
        await sender.defer_unknown(_Delivery(count))  # type: ignore[arg-type]
    bits = [int(key.removeprefix("delay.").partition(".run.")[0].replace(".", ""), 2) for key in keys]
    assert bits == [10, 20, 40, 320, 600, 600], "tenths of a second"


class _Delivery:
    """A delivery that was deferred ``count`` times."""

    can_be_settled = True
    queue = "ns.run.default"

    def __init__(self, count: int) -> None:
        self.headers = {deferral.COUNT_HEADER: count}

    body = b"{}"

    async def ack(self) -> None:
        return


async def test_event_of_newer_version_is_deferred(rig: Rig) -> None:
    event = order_event(rig.topology, "note")
    future = encode(event).replace(b'"schemaversion":2', b'"schemaversion":9')
    await rig.put(future)
    async with rig.worker(jobs.note):
        await eventually(rig.depth_is(0))
    body, headers = await on_the_queue(rig)
    assert (body, headers[deferral.COUNT_HEADER]) == (future, 1)
    await rig.put(future)
    async with rig.worker(jobs.note, unknown_type_timeout=0.0):
        buried = await eventually(rig.dead, what="the message is on the dead queue")
    assert buried[0] == future
    assert jobs.calls == []


async def test_unknown_type_fails_after_timeout(rig: Rig) -> None:
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
