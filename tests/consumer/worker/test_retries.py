"""Failed attempts and their retries, on the tape and on the queues."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from jobtape.broker import declare
from jobtape.schemas.events import JobEvent, Placed, Retrying, WorkEvent
from jobtape.view.store import Store
from tests.broker.proxy import Proxy
from tests.consumer import retry_jobs as jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

STEP = timedelta(seconds=0.1)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    jobs.calls.clear()
    jobs.gate.set()
    yield
    jobs.gate.set()


@pytest.fixture
async def rig(folded_rig: Rig) -> AsyncIterator[Rig]:
    """The rig of ``conftest`` with a projector. All queues must be empty at the end of the test."""
    rig = folded_rig
    yield rig
    await eventually(lambda: _total_depth_is(rig, 0), what="nothing is left on any queue")


async def _total_depth_is(rig: Rig, expected: int) -> bool:
    connection = await rig.link.connection()
    total = 0
    for queue in rig.topology.declared_queues():
        if queue.declared_arguments()["x-queue-type"] != "stream":
            found = await declare.depth(connection, queue.name)
            total += found.messages if found is not None else 0
    return total == expected


def attempts(tape: list[JobEvent]) -> list[tuple[str, int]]:
    """Return the name of the event that ended each attempt, and the attempt."""
    return [(event.name, event.data.attempt) for event in tape if event.name not in ("submitted", "started", "placed")]


async def test_attempts_are_retried_until_one_succeeds(rig: Rig) -> None:
    async with rig.worker(jobs.flaky):
        job_id = await rig.submit("flaky", {"fails": 2}, max_attempts=5)
        outcome = await rig.outcome(job_id)
    assert outcome.data.result == "attempt 3"
    assert attempts(rig.of(job_id)) == [("retrying", 1), ("retrying", 2), ("succeeded", 3)]
    one, two = (event for event in rig.of(job_id) if isinstance(event, Retrying))
    assert [one.data.next_at - one.time, two.data.next_at - two.time] == [2 * STEP, 4 * STEP]
    assert (one.data.reason, one.data.error.type, one.data.error.message) == ("error", "ConnectionError", "attempt 1")
    assert "raise ConnectionError" in (one.data.error.traceback or "")
    assert outcome.data.started_at >= two.data.next_at > two.time >= one.data.next_at, "never early"
    works = [event for event in rig.of(job_id) if isinstance(event, WorkEvent)]
    assert [event.causationid for event in (one, two, outcome)] == [event.id for event in works]
    assert len({event.data.order.model_dump_json() for event in works}) == 1, "the retry has the same order"
    assert set(jobs.calls.values()) == {1}


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_max_attempts_of_order_limits_attempts(rig: Rig, most: int) -> None:
    async with rig.worker(jobs.flaky):
        job_id = await rig.submit("flaky", {"fails": 99}, max_attempts=most)
        outcome = await rig.outcome(job_id)
    assert (outcome.name, outcome.data.attempt, outcome.data.reason) == ("failed", most, "error")
    assert attempts(rig.of(job_id)) == [*(("retrying", n) for n in range(1, most)), ("failed", most)]
    assert jobs.calls == {(job_id, n): 1 for n in range(1, most + 1)}


async def test_max_attempts_of_order_applies_without_policy(rig: Rig) -> None:
    async with rig.worker(jobs.never_again):
        once, twice = await rig.submit("never-again"), await rig.submit("never-again", max_attempts=2)
        assert (await rig.outcome(once)).data.attempt == 1
        assert (await rig.outcome(twice)).data.attempt == 2


@pytest.mark.parametrize(("error", "tries"), [("OSError", 3), ("ConnectionError", 3), ("ValueError", 1)])
async def test_policy_selects_exceptions_to_retry(rig: Rig, error: str, tries: int) -> None:
    async with rig.worker(jobs.picky):
        outcome = await rig.outcome(await rig.submit("picky", {"error": error}, max_attempts=3))
    assert (outcome.name, outcome.data.attempt, outcome.data.error.type) == ("failed", tries, error)


async def test_timeout_is_retried_as_timeout_error(rig: Rig) -> None:
    async with rig.worker(jobs.slow, jobs.slow_but_fine):
        job_id = await rig.submit("slow", timeout=0.2, max_attempts=2)
        other = await rig.submit("slow-but-fine", timeout=0.2, max_attempts=2)
        outcome, only = await rig.outcome(job_id), await rig.outcome(other)
    assert attempts(rig.of(job_id)) == [("retrying", 1), ("failed", 2)]
    assert {event.data.reason for event in rig.of(job_id) if isinstance(event, Retrying)} == {"timeout"}
    assert (outcome.data.reason, only.data.reason, only.data.attempt) == ("timeout", "timeout", 1)


@pytest.mark.parametrize("seconds", [0.0, 0.35])
async def test_retry_exception_sets_delay(rig: Rig, seconds: float) -> None:
    async with rig.worker(jobs.asks):
        job_id = await rig.submit("asks", {"seconds": seconds}, max_attempts=3)
        outcome = await rig.outcome(job_id)
    (retrying,) = (event for event in rig.of(job_id) if isinstance(event, Retrying))
    assert retrying.data.next_at - retrying.time == timedelta(seconds=seconds), "the policy says a minute"
    assert (retrying.data.error.type, retrying.data.error.message) == ("Retry", "the other side is busy")
    assert (outcome.name, outcome.data.attempt) == ("succeeded", 2)
    assert outcome.data.started_at >= retrying.data.next_at


async def test_retry_exception_ends_with_max_attempts(rig: Rig) -> None:
    async with rig.worker(jobs.asks):
        outcome = await rig.outcome(await rig.submit("asks", {"seconds": 0.1}, max_attempts=1))
    assert (outcome.name, outcome.data.error.type, outcome.data.attempt) == ("failed", "Retry", 1)


async def test_fail_exception_ends_attempts(rig: Rig) -> None:
    async with rig.worker(jobs.gives_up):
        outcome = await rig.outcome(await rig.submit("gives-up", max_attempts=5))
    assert (outcome.name, outcome.data.attempt, outcome.data.error.type) == ("failed", 1, "Fail")
    assert outcome.data.error.message == "there is no such customer"


async def test_waiting_retry_is_held_by_no_worker(rig: Rig, view: Store) -> None:
    """Another worker, started later, runs it when it is due."""
    async with rig.worker(jobs.asks):
        # Longer than the worker takes to stop.
        job_id = await rig.submit("asks", {"seconds": 3.0}, max_attempts=3)
        await eventually(lambda: attempts(rig.of(job_id)) == [("retrying", 1)])
    assert await _total_depth_is(rig, 0)
    assert len(await eventually(lambda: view.open_jobs.timed(9))) == 1
    async with rig.worker(jobs.asks, name="later"):
        outcome = await rig.outcome(job_id)
    assert (outcome.name, outcome.data.worker) == ("succeeded", "later")


@pytest.mark.parametrize("back", ["before", "after"])
async def test_attempt_that_failed_in_two_executions_is_retried_once(rig: Rig, back: str) -> None:
    """The worker loses its connection, and the broker delivers the attempt again.

    ``back``: whether the worker is connected again before or after the handler has failed.
    """
    jobs.gate.clear()
    async with Proxy(rig.url) as proxy:
        direct, rig.url = rig.url, proxy.url
        async with rig.worker(jobs.fails_behind_the_gate, grace=10) as worker:
            rig.url = direct
            job_id = await rig.submit("fails-behind-the-gate", max_attempts=3)
            await eventually(lambda: jobs.calls[job_id, 1] == 1 and "started" in rig.names(job_id))
            proxy.refuse = True
            proxy.cut()
            await eventually(lambda: worker.fault is not None, what="the loss is noticed")
            if back == "after":
                jobs.gate.set()
            proxy.refuse = False
            await eventually(lambda: worker.fault is None, what="jobs are taken again")
            jobs.gate.set()
            outcome = await rig.outcome(job_id)
    assert (outcome.name, outcome.data.attempt) == ("failed", 3)
    assert (jobs.calls[job_id, 2], jobs.calls[job_id, 3]) == (1, 1)
    placed = [event.data.attempt for event in rig.of(job_id) if isinstance(event, Placed)]
    assert placed == [2, 3]
