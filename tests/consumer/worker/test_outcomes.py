"""The outcome that a worker publishes for what a handler did."""

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest

from jobtape.consumer.worker.handlers.handlers import Handlers
from jobtape.schemas.execution.context import Context
from jobtape.schemas.job import Order
from tests.consumer import jobs
from tests.consumer.installation import Rig
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("job_type", "payload", "result"),
    [
        (jobs.add, {"x": 3, "y": 4}, 7),
        (jobs.aadd, {"x": 3, "y": 4}, 7),
        (jobs.nulls, {"value": {"a": None, "b": [None], "c": {"d": None}}}, {"a": None, "b": [None], "c": {"d": None}}),
        (jobs.nulls, {"value": {"text": "ä\u2028😀", "n": 2**62}}, {"text": "ä\u2028😀", "n": 2**62}),
    ],
)
async def test_result_is_published(rig: Rig, job_type: Any, payload: dict[str, Any], result: Any) -> None:
    async with rig.worker(job_type, name="me"):
        outcome = await rig.outcome(await rig.submit(job_type.name, payload))
    assert (outcome.name, outcome.data.result, outcome.data.worker) == ("succeeded", result, "me")
    assert outcome.data.duration >= 0
    assert outcome.causationid == rig.events[0].id


@pytest.mark.parametrize(
    ("job_type", "reason", "error", "message"),
    [
        (jobs.boom, "error", "ValueError", "bang"),
        (jobs.aboom, "error", "TimeoutError", "the handler's own"),
        (jobs.leave, "error", "SystemExit", "3"),
        (jobs.aleave, "error", "SystemExit", "3"),
        (jobs.child_leaves, "error", "SystemExit", "4"),
        (jobs.cancels_itself, "error", "CancelledError", ""),
        (jobs.too_long, "timeout", "TimeoutError", "within 0.3 s"),
        (jobs.too_long_thread, "timeout", "TimeoutError", "within 0.3 s"),
        (jobs.big, "result_too_large", "ResultTooLarge", "2000002 bytes"),
        (jobs.not_a_number, "result_invalid", "ResultInvalid", "NaN"),
        (jobs.an_object, "result_invalid", "ResultInvalid", "object"),
        (jobs.wrong_result, "result_invalid", "ResultInvalid", "int"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_failure_is_published(rig: Rig, job_type: Any, reason: str, error: str, message: str) -> None:
    """Only the job fails: other handlers still run in threads and on the loop."""
    async with rig.worker(job_type, jobs.add, jobs.aadd):
        outcome = await rig.outcome(await rig.submit(job_type.name, timeout=job_type.timeout))
        assert (outcome.name, outcome.data.reason) == ("failed", reason)
        assert outcome.data.error.type == error
        assert message in outcome.data.error.message
        for healthy in ("add", "aadd"):
            after = await rig.outcome(await rig.submit(healthy, {"x": 1, "y": 1}))
            assert after.name == "succeeded"


async def test_handler_that_returns_after_timeout_cancel_succeeds(rig: Rig) -> None:
    """Its work is done, so its result counts."""
    async with rig.worker(jobs.finishes_late):
        outcome = await rig.outcome(await rig.submit("finishes-late", timeout=0.2))
    assert (outcome.name, outcome.data.result) == ("succeeded", "done")


async def test_traceback_shows_only_frames_of_handler(rig: Rig) -> None:
    async with rig.worker(jobs.boom):
        outcome = await rig.outcome(await rig.submit("boom"))
    trace = outcome.data.error.traceback
    assert "raise ValueError(text)" in trace
    assert "handlers.py" not in trace


async def test_exception_message_is_shortened(rig: Rig) -> None:
    """The message is part of an event, whose size is limited."""
    async with rig.worker(jobs.boom):
        ends = [await rig.submit("boom", {"text": text}) for text in ("x" * 50_000, "\u202e\x1b[31m", "ünï")]
        outcomes = [await rig.outcome(job_id) for job_id in ends]
    assert [len(each.data.error.message) for each in outcomes] == [2000, 6, 3]


async def test_payload_that_does_not_fit_fails_job(rig: Rig) -> None:
    async with rig.worker(jobs.add):
        outcome = await rig.outcome(await rig.submit("add", {"x": "q"}))
    assert (outcome.name, outcome.data.reason) == ("failed", "payload_invalid")
    assert rig.steps(outcome.subject) == ["submitted", "failed"]


@pytest.mark.parametrize("job_type", [jobs.add, jobs.aadd, jobs.boom, jobs.aboom, jobs.too_long])
async def test_ended_executions_are_freed(job_type: Any) -> None:
    """asyncio itself keeps a hundred cancelled timers."""
    many = 300
    handlers = Handlers(concurrency=4, max_result=1000)
    payload = {"x": 1, "y": 2} if job_type in (jobs.add, jobs.aadd) else {}
    order = Order(type=job_type.name, payload=payload, queue="default", timeout=job_type.timeout)
    context = Context("id", job_type.name, 1, 1, logging.getLogger("test"), lambda _: None)
    started = [handlers.start(job_type, order, context) for _ in range(many)]
    await asyncio.gather(*(handlers.wait_for_outcome(each) for each in started))
    kept = weakref.WeakSet(started)
    started.clear()

    def freed() -> bool:
        gc.collect()
        return len(kept) < many / 2

    await eventually(freed, what="the executions are freed")
    await handlers.close()
