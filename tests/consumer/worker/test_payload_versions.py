"""Payloads of version 1 after their job type has changed to version 2, and workers that still have version 1."""

from datetime import UTC, datetime
from typing import Any

import pytest

from jobtape.consumer.outcome import Success
from jobtape.consumer.replays.shadow import run_in_shadow
from jobtape.consumer.subscriber_message import subscriber_message
from jobtape.schemas import ids, plainjson
from jobtape.schemas.events import CONTENT_TYPE, Placed, Redriven, RedrivenData, Submitted, decode, placement
from jobtape.schemas.events.upcast import CURRENT_VERSION
from jobtape.schemas.filters.selection import Selection
from jobtape.schemas.fold import evolve
from jobtape.schemas.job import JobState
from jobtape.schemas.topology import EVENT_KEY, work_key
from jobtape.view.store import Store
from tests.consumer import version_jobs as jobs
from tests.consumer.installation import Rig, order_event
from tests.consumer.rebuild_helpers import rebuilt
from tests.schemas.old_events import as_version_1
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

ALL = (jobs.greet_async, jobs.greet_thread, jobs.greet_process, jobs.greet_second)


async def submit_old(rig: Rig, job_type: str, payload: dict[str, Any], **order: Any) -> tuple[str, bytes]:
    """Publish a job as an API of version 1 does. Return its id and the bytes."""
    event = order_event(rig.topology, job_type, payload, **order)
    body = as_version_1(event)
    await rig.publisher.send(body, EVENT_KEY, [work_key("default")], content_type=CONTENT_TYPE)
    return event.subject, body


async def test_old_payload_is_upcast_on_loop_thread_and_process(folded_rig: Rig) -> None:
    rig = folded_rig
    waiting = [(await submit_old(rig, job_type.name, {"name": "ann"}, max_attempts=2))[0] for job_type in ALL]
    async with rig.worker(*ALL):
        for job_id in waiting:
            outcome = await rig.outcome(job_id)
            assert (outcome.name, outcome.data.result) == ("succeeded", "hello ann")
    (again,) = [event for event in rig.of(waiting[-1]) if isinstance(event, Placed)]
    assert (again.data.order.payload, again.data.order.payload_version) == ({"name": "ann"}, 1), "as it was submitted"


async def test_failed_upcast_fails_job_without_retry(rig: Rig) -> None:
    async with rig.worker(*ALL):
        for job_type in ALL:
            job_id, _ = await submit_old(rig, job_type.name, {"nom": "ann"}, max_attempts=5)
            data = (await rig.outcome(job_id)).data
            assert (data.reason, data.attempt) == ("payload_invalid", 1)
            assert "version 1 cannot be upcast to version 2: KeyError: 'name'" in data.error.message


async def test_older_worker_defers_newer_payload(folded_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = folded_rig
    monkeypatch.setattr(placement, "SHORTEST_WAIT", 0.1)
    async with rig.worker(jobs.old_greet) as old:
        job_id = await rig.submit("greet.async", {"names": ["ann", "bob"]}, payload_version=2, max_attempts=1)
        known, _ = await submit_old(rig, "greet.async", {"name": "eve"})
        assert (await rig.outcome(known)).data.result == "hello eve"
        await eventually(lambda: "deferred" in rig.names(job_id))
        async with rig.worker(jobs.greet_async):
            rig.stop(old.name)
            outcome = await rig.outcome(job_id)
    assert (outcome.name, outcome.data.attempt, outcome.data.result) == ("succeeded", 1, "hello ann and bob")


async def test_unknown_version_fails_after_timeout(rig: Rig) -> None:
    async with rig.worker(jobs.old_greet, unknown_type_timeout=0.0):
        outcome = await rig.outcome(await rig.submit("greet.async", {"names": []}, payload_version=2))
    assert outcome.data.reason == "unknown_type"
    assert "up to version 1, and this one is of version 2" in outcome.data.error.message


async def test_job_of_version_1_is_redriven_relayed_and_rebuilt(rig: Rig, store: Store) -> None:
    async with rig.projector(store):
        async with rig.worker(jobs.old_greet):
            job_id, body = await submit_old(rig, "greet.async", {"name": "ann"})
            await rig.outcome(job_id)
        # From now on its queue is served by new workers only.
        async with rig.worker(jobs.greet_async):
            await rig.publisher.publish(_redriven(rig, job_id))
            await eventually(lambda: rig.names(job_id).count("succeeded") == 2, 20, what="the second run's outcome")
        job = await eventually(lambda: _done(store, job_id), what="it is folded")
    assert (job.run, job.result, job.payload, job.payload_version) == (2, "hello ann", {"name": "ann"}, 1)
    first = store.history(job_id)[0]
    assert first.event.encode() == body, "the history keeps what was written"
    assert isinstance(rig.of(job_id)[0], Submitted)
    row = store.committed.page(first.cursor - 1, 1, Selection()).rows[0]
    assert plainjson.loads(subscriber_message(row).body)["schemaversion"] == CURRENT_VERSION, (
        "subscribers get the newest version"
    )
    assert rebuilt(store).generation == 2
    assert store.job(job_id) == job
    assert store.history(job_id)[0] == first
    then = store.past.job(job_id, first.cursor)
    assert then is not None
    assert (then.payload, then.payload_version) == ({"name": "ann"}, 1)


async def test_shadow_run_upcasts_old_payload(rig: Rig) -> None:
    job = evolve(None, decode(as_version_1(order_event(rig.topology, "greet.async", {"name": "ann"}))))
    assert run_in_shadow(jobs.greet_async, job, 10.0) == Success("hello ann")


def _redriven(rig: Rig, job_id: str) -> Redriven:
    return Redriven(
        id=ids.run_event_id(job_id, 2, Redriven.name),
        source=rig.topology.source,
        subject=job_id,
        time=datetime.now(UTC),
        data=RedrivenData(job_type="greet.async", run=2, attempt=1),
    )


def _done(store: Store, job_id: str) -> Any:
    job = store.job(job_id)
    return job if job is not None and job.run == 2 and job.state is JobState.SUCCEEDED else None
