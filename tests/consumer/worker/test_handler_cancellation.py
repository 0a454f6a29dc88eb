"""Whatever handlers do to tasks and loops, each execution ends in time, and other jobs do not fail for it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from jobtape.consumer.outcome import Failure, Outcome, Success
from jobtape.consumer.worker.handlers import handlers as module
from jobtape.consumer.worker.handlers.handlers import ExecutionAborted, Handlers, RunningHandler
from jobtape.jobs import JobType
from jobtape.schemas.execution.context import Context
from jobtape.schemas.job import Order
from tests.consumer import unruly_jobs as jobs
from tests.waiting import LIMIT, eventually, within

pytestmark = pytest.mark.anyio


@pytest.fixture
async def handlers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Handlers]:
    """Handlers without a broker."""
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.2)
    jobs.gate.clear()
    jobs.calls.clear()
    made = Handlers(concurrency=4, max_result=1000)
    yield made
    jobs.gate.set()
    await made.close()


def start(handlers: Handlers, job_type: JobType, timeout: float = 3.0, **payload: Any) -> RunningHandler:
    """Start one execution."""
    order = Order(type=job_type.name, payload=payload, queue="default", timeout=timeout)
    context = Context("id", job_type.name, 1, 1, logging.getLogger("test"), lambda _: None)
    return handlers.start(job_type, order, context)


async def outcome_of(handlers: Handlers, job_type: JobType, timeout: float = 3.0, **payload: Any) -> Outcome:
    """Return the outcome of one execution, which must come within a second after its timeout."""
    with within(timeout + 1):
        async with asyncio.timeout(LIMIT):
            return await handlers.wait_for_outcome(start(handlers, job_type, timeout, **payload))


def failed(outcome: Outcome) -> tuple[str, str]:
    """Return the reason and the error's type."""
    assert isinstance(outcome, Failure)
    return outcome.reason, outcome.error.type


@pytest.mark.parametrize(
    "job_type",
    [
        jobs.cancels_task,
        jobs.cancels_with_message,
        jobs.cancels_later,
        jobs.cancels_twice,
        jobs.cancels_and_uncancels,
        jobs.child_cancels_parent,
        jobs.cancels_child,
        jobs.thread_cancels_task,
        jobs.cancels_all,
        jobs.thread_cancels_its_run,
    ],
    ids=lambda each: each.name,
)
async def test_unrequested_cancellation_fails_job(handlers: Handlers, job_type: JobType) -> None:
    outcome = await outcome_of(handlers, job_type)
    assert failed(outcome) == ("error", "CancelledError")
    assert isinstance(outcome, Failure)
    assert outcome.error.message, "the message is not empty"


async def test_def_handler_has_no_task_to_cancel(handlers: Handlers) -> None:
    assert failed(await outcome_of(handlers, jobs.thread_has_no_task)) == ("error", "RuntimeError")


async def test_closed_coroutine_fails_job(handlers: Handlers) -> None:
    """Its task would wait forever."""
    assert failed(await outcome_of(handlers, jobs.closes_its_coroutine)) == ("error", "GeneratorExit")


async def test_handler_that_cancels_itself_and_returns_succeeds(handlers: Handlers) -> None:
    assert await outcome_of(handlers, jobs.cancels_and_returns) == Success("done")


async def test_cancellations_handled_in_handler_do_not_matter(handlers: Handlers) -> None:
    assert await outcome_of(handlers, jobs.within_limits) == Success("done")


async def test_callback_that_blocks_loop_ends_worker(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    """No execution owns the callback, so no timeout ends it."""
    monkeypatch.setattr(module, "CREDIT", 0.1)
    monkeypatch.setattr(module, "LONGEST_SILENCE", 0.1)
    with pytest.raises(ExecutionAborted):
        # Long enough for a busy machine to run the callback before.
        await outcome_of(handlers, jobs.callback_blocks, timeout=1.0)
    assert handlers.exit_requested.is_set()
    assert "a callback of a handler" in handlers.why_exit


async def test_abandoned_task_that_blocks_loop_ends_worker(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CREDIT", 0.1)
    monkeypatch.setattr(module, "LONGEST_SILENCE", 0.1)
    assert await outcome_of(handlers, jobs.task_blocks_later) == Success("done")
    with pytest.raises(ExecutionAborted):
        await outcome_of(handlers, jobs.waits, timeout=1.0)
    assert handlers.exit_requested.is_set()


@pytest.mark.parametrize(
    "job_type",
    [jobs.uncancels_for_ever, jobs.swallows_then_cancels, jobs.waits_in_finally, jobs.cancels_then_swallows],
    ids=lambda each: each.name,
)
async def test_timeout_holds_when_handler_swallows_cancellation(handlers: Handlers, job_type: JobType) -> None:
    assert failed(await outcome_of(handlers, job_type, timeout=0.2)) == ("timeout", "TimeoutError")


@pytest.mark.parametrize("culprit", [jobs.cancels_all, jobs.cancels_the_others], ids=lambda each: each.name)
async def test_execution_cancelled_by_other_handler_is_aborted(handlers: Handlers, culprit: JobType) -> None:
    neighbour = start(handlers, jobs.waits)
    await eventually(lambda: jobs.calls)
    waiting = asyncio.create_task(handlers.wait_for_outcome(neighbour))
    await outcome_of(handlers, culprit)
    with within(1), pytest.raises(ExecutionAborted, match="another handler cancelled"):
        await waiting


async def test_requested_cancellation_has_no_outcome(handlers: Handlers) -> None:
    handler = start(handlers, jobs.waits)
    await eventually(lambda: jobs.calls)
    assert handler.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(handler, LIMIT)
    assert handler.cancelled()


@pytest.mark.parametrize("name", jobs.RAISED)
@pytest.mark.parametrize("job_type", [jobs.raises, jobs.araises], ids=lambda each: each.name)
async def test_any_exception_fails_job(handlers: Handlers, job_type: JobType, name: str) -> None:
    # A coroutine cannot raise StopIteration: Python makes it a RuntimeError.
    expected = "RuntimeError" if (job_type.is_async and name == "StopIteration") else name
    assert failed(await outcome_of(handlers, job_type, name=name)) == ("error", expected)


@pytest.mark.parametrize("name", jobs.RAISED)
async def test_loop_goes_on_after_callback_raises(handlers: Handlers, name: str) -> None:
    assert await outcome_of(handlers, jobs.callback_raises, name=name) == Success("done")


@pytest.mark.parametrize("method", ["stop", "close", "shutdown_default_executor"])
async def test_handler_cannot_stop_shared_loop(handlers: Handlers, method: str) -> None:
    neighbour = asyncio.create_task(outcome_of(handlers, jobs.leaves_in_executor))
    assert failed(await outcome_of(handlers, jobs.on_loop, method=method)) == ("error", "RuntimeError")
    assert isinstance(await neighbour, Success)
    assert isinstance(await outcome_of(handlers, jobs.leaves_in_executor), Success)
