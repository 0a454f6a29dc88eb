"""What jobs do, in memory and on a real broker alike."""

from itertools import pairwise
from typing import Any

import pytest

from jobtape import Flow, Options
from jobtape.schemas.events import Succeeded
from jobtape.testing import Installation
from tests.testing import jobs

pytestmark = pytest.mark.anyio


async def test_submitted_job_waits_until_drain_and_has_result(jt: Installation) -> None:
    job = await jobs.add.submit(x=1, y=2)
    assert jt[job].state == "queued"
    assert jt.assert_submitted(jobs.add, x=1).id == job.id
    jt.refute_submitted(jobs.add, x=100)
    await jt.drain()
    assert (jt[job.id].state, jt[job].result) == ("succeeded", 3)
    assert [event.name for event in jt.events(job)] == ["submitted", "succeeded"]


async def test_rest_api_submits_and_reads(jt: Installation) -> None:
    answer = await jt.client.post("/jobs", json={"type": "greet", "payload": {"name": "Ada"}})
    assert answer.status_code == 202
    await jt.drain()
    shown = await jt.client.get(answer.headers["location"])
    assert (shown.json()["state"], shown.json()["result"]) == ("succeeded", "Hello, Ada (1)")


async def test_assertions_name_what_was_submitted(jt: Installation) -> None:
    await jobs.add.submit(x=7, y=8)
    with pytest.raises(AssertionError, match=r"no job add with \{'x': 70\}.*'x': 7"):
        jt.assert_submitted(jobs.add, x=70)
    with pytest.raises(AssertionError, match="'x': 7"):
        jt.refute_submitted(jobs.add, x=7)
    await jt.drain()


async def test_retries_follow_the_clock(jt: Installation) -> None:
    job = await jobs.flaky.submit(fail=2)
    await jt.drain()
    assert (jt[job].state, jt[job].attempt) == ("retrying", 1)
    await jt.advance(seconds=61)
    assert (jt[job].state, jt[job].attempt) == ("retrying", 2)
    await jt.advance(seconds=61)
    assert (jt[job].state, jt[job].result) == ("succeeded", 3)


async def test_advance_does_each_thing_at_its_time(jt: Installation) -> None:
    job = await jobs.flaky.submit(fail=2)
    await jt.advance(hours=1)
    times = [event.time for event in jt.events(job) if event.name in ("retrying", "succeeded")]
    pauses = [(after - before).total_seconds() for before, after in pairwise(times)]
    assert [round(pause / 60) for pause in pauses] == [1, 1]


async def test_delayed_job_runs_when_due(jt: Installation) -> None:
    job = await jobs.add.submit_with(Options(delay=3 * 86_400), x=1, y=1)
    await jt.advance(days=2)
    assert jt[job].state == "scheduled"
    await jt.advance(days=1, seconds=1)
    assert jt[job].state == "succeeded"


async def test_failed_job_is_redriven(jt: Installation, ran: list[Any]) -> None:
    job = await jobs.mended.submit(ok="mended")
    await jt.drain()
    error = jt[job].error
    assert error is not None
    assert (jt[job].state, error.type, error.message) == ("failed", "ValueError", "not mended yet")
    ran.append("mended")
    assert (await jt.client.post(f"/jobs/{job.id}/redrive")).status_code == 202
    await jt.drain()
    assert (jt[job].state, jt[job].run) == ("succeeded", 2)


async def test_cancelled_job_does_not_run(jt: Installation, ran: list[Any]) -> None:
    job = await jobs.add.submit(x=1, y=1)
    delayed = await jobs.add.submit_with(Options(delay=60), x=1, y=1)
    for each in (job, delayed):
        assert (await jt.client.post(f"/jobs/{each.id}/cancel")).status_code == 202
    await jt.advance(seconds=61)
    assert [jt[job].state, jt[delayed].state] == ["cancelled", "cancelled"]
    assert ran == []


async def test_ordering_key_keeps_the_order(jt: Installation, ran: list[Any]) -> None:
    for n in range(5):
        await jobs.ordered.submit(key="a", n=n)
    await jt.drain()
    assert ran == [("a", n) for n in range(5)]


async def test_concurrency_lets_one_run_at_a_time(jt: Installation, ran: list[Any]) -> None:
    for n in range(4):
        await jobs.limited.submit(n=n)
    await jt.drain()
    assert [what for what, _ in ran] == ["begin", "end"] * 4


async def test_rate_follows_the_clock(jt: Installation) -> None:
    submitted = [await jobs.rated.submit(n=n) for n in range(3)]
    await jt.drain()
    assert [jt[job].state for job in submitted] == ["succeeded", "held", "held"]
    await jt.advance(minutes=10)
    assert [jt[job].state for job in submitted] == ["succeeded", "succeeded", "held"]
    await jt.advance(minutes=10)
    assert jt[submitted[2]].state == "succeeded"


async def test_unique_cancels_the_second(jt: Installation) -> None:
    first, second = await jobs.once.submit(order=1), await jobs.once.submit(order=1)
    await jt.drain()
    assert (jt[first].state, jt[second].state, jt[second].duplicate_of) == ("succeeded", "cancelled", first.id)


async def test_debounce_runs_the_last(jt: Installation) -> None:
    first, last = [await jobs.settled.submit(doc="a", version=n) for n in (1, 2)]
    await jt.advance(seconds=31)
    assert (jt[first].state, jt[last].state, jt[last].result) == ("cancelled", "succeeded", 2)


async def test_lanes_have_queues_of_their_own(jt: Installation, ran: list[Any]) -> None:
    await jobs.patient.submit()
    await jobs.urgent.submit()
    await jt.drain()
    assert sorted(ran) == ["high", "low"]
    assert {job.queue for job in (*jt.jobs(jobs.patient), *jt.jobs(jobs.urgent))} == {"lanes.low", "lanes.high"}


async def test_flow_runs_its_nodes_in_order(jt: Installation) -> None:
    flow = Flow()
    parts = [flow.add(jobs.add, x=n, y=n) for n in (1, 2)]
    flow.add(jobs.total, parts=[part.result for part in parts])
    job = await flow.submit()
    await jt.drain()
    assert jt.assert_submitted(jobs.total, parts=[2, 4]).result == 6
    assert jt[job].state == "succeeded"


async def test_follow_ups_give_the_job_its_result(jt: Installation) -> None:
    job = await jobs.fan.submit(n=3)
    await jt.drain()
    assert (jt[job].state, jt[job].result) == ("succeeded", 6)


async def test_signal_lets_the_job_go_on(jt: Installation) -> None:
    job = await jobs.ask.submit()
    await jt.drain()
    assert jt[job].state == "held"
    sent = await jt.client.post(f"/jobs/{job.id}/signals/approval", json={"payload": {"by": "Ada"}})
    assert sent.status_code in (200, 202)
    await jt.drain()
    assert jt[job].result == "Ada"


async def test_time_of_signal_follows_the_clock(jt: Installation) -> None:
    job = await jobs.ask.submit()
    await jt.advance(minutes=59)
    assert jt[job].state == "held"
    await jt.advance(minutes=2)
    assert jt[job].result == "late"


async def test_handler_submits_jobs(jt: Installation) -> None:
    job = await jobs.parent.submit()
    await jt.drain()
    child, other = str(jt[job].result).split()
    assert [jt[child].result, jt[other].result] == [2, 4]
    assert jt[other].correlation_id == jt[job].correlation_id


async def test_schedule_submits_a_job_at_each_tick(jt: Installation, ran: list[Any]) -> None:
    put = await jt.client.put("/schedules/hourly", json={"type": "tick", "every": 3600})
    assert put.status_code in (200, 201, 202)
    await jt.advance(hours=3)
    assert ran == ["tick"] * 3
    assert (await jt.client.delete("/schedules/hourly")).status_code in (200, 202, 204)
    await jt.advance(hours=3)
    assert ran == ["tick"] * 3


async def test_declared_schedule_is_in_force_after_a_sync(jt: Installation, ran: list[Any]) -> None:
    await jt.advance(hours=2)
    assert ran == []
    await jt.sync_schedules()
    await jt.advance(hours=2)
    assert ran == ["tick"] * 2
    await jt.client.delete("/schedules/tick")


async def test_batch_handler_gets_jobs_together(jt: Installation) -> None:
    submitted = [await jobs.many.submit(n=n) for n in range(3)]
    await jt.drain()
    assert [jt[job].result for job in submitted] == [0, 2, 4]


async def test_subscription_gets_events(jt: Installation) -> None:
    async with jt.subscribe(events="succeeded", types=jobs.add) as events:
        job = await jobs.add.submit(x=20, y=22)
        await jt.drain()
        async for event in events:
            if event.job_id == job.id:
                break
    assert isinstance(event.event, Succeeded) and event.event.data.result == 42


async def test_isolated_handler_runs_in_this_process(jt: Installation) -> None:
    job = await jobs.alone.submit(n=1)
    await jt.drain()
    assert jt[job].result == 2
