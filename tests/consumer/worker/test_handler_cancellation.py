"""Whatever handlers do to tasks and loops: each execution ends, on time, and its neighbours are not failed for it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from jobtape.consumer.outcome import Failure, Outcome, Success
from jobtape.consumer.worker import handlers as module
from jobtape.consumer.worker.handlers import ExecutionUndone, Handlers, RunningHandler
from jobtape.jobs import JobType
from jobtape.schemas.context import Context
from jobtape.schemas.job import Order
from tests.consumer import unruly_jobs as jobs
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def handlers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Handlers]:
    """They need no broker."""
    monkeypatch.setattr(module, "LATE", 0.2)
    jobs.gate.clear()
    jobs.calls.clear()
    made = Handlers(concurrency=4, max_result=1000)
    yield made
    jobs.gate.set()
    await made.close()


def begin(handlers: Handlers, job_type: JobType, **payload: Any) -> RunningHandler:
    """One execution."""
    order = Order(type=job_type.name, payload=payload, queue="default", timeout=job_type.timeout)
    context = Context("id", job_type.name, 1, 1, logging.getLogger("test"), lambda _: None)
    return handlers.start(job_type, order, context)


async def outcome_of(handlers: Handlers, job_type: JobType, timeout: float = 3.0, **payload: Any) -> Outcome:
    """What becomes of one execution, within its time-out and a second."""
    order = Order(type=job_type.name, payload=payload, queue="default", timeout=timeout)
    context = Context("id", job_type.name, 1, 1, logging.getLogger("test"), lambda _: None)
    async with asyncio.timeout(timeout + 1):
        return await handlers.outcome(handlers.start(job_type, order, context), job_type, timeout)


def failed(outcome: Outcome) -> tuple[str, str]:
    """Why, and with what error."""
    assert isinstance(outcome, Failure)
    return outcome.reason, outcome.error.type


@pytest.mark.parametrize(
    "job_type",
    [
        jobs.cancels_task,
        jobs.cancels_with_words,
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
async def test_cancellation_that_nobody_asked_for_is_the_jobs_failure(handlers: Handlers, job_type: JobType) -> None:
    outcome = await outcome_of(handlers, job_type)
    assert failed(outcome) == ("error", "CancelledError")
    assert isinstance(outcome, Failure)
    assert outcome.error.message, "it says what happened"


async def test_def_handler_has_no_task_to_cancel(handlers: Handlers) -> None:
    assert failed(await outcome_of(handlers, jobs.thread_has_no_task)) == ("error", "RuntimeError")


async def test_coroutine_that_is_closed_from_outside_has_failed(handlers: Handlers) -> None:
    """Its task would wait for ever."""
    assert failed(await outcome_of(handlers, jobs.closes_its_coroutine)) == ("error", "GeneratorExit")


async def test_handler_that_cancels_itself_and_returns_has_succeeded(handlers: Handlers) -> None:
    assert await outcome_of(handlers, jobs.cancels_and_returns) == Success("done")


async def test_cancellations_that_a_handler_handles_are_its_own_business(handlers: Handlers) -> None:
    assert await outcome_of(handlers, jobs.within_limits) == Success("done")


async def test_callback_that_blocks_the_loop_for_good_gives_it_up(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's time-out would end it."""
    monkeypatch.setattr(module, "CREDIT", 0.1)
    monkeypatch.setattr(module, "SILENT", 0.1)
    with pytest.raises(ExecutionUndone):
        await outcome_of(handlers, jobs.callback_blocks, timeout=0.2)
    assert handlers.given_up.is_set()
    assert "a callback of a handler" in handlers.why_given_up


async def test_task_left_behind_that_blocks_the_loop_for_good_gives_it_up(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CREDIT", 0.1)
    monkeypatch.setattr(module, "SILENT", 0.1)
    assert await outcome_of(handlers, jobs.task_blocks_later) == Success("done")
    with pytest.raises(ExecutionUndone):
        await outcome_of(handlers, jobs.waits, timeout=0.2)
    assert handlers.given_up.is_set()


@pytest.mark.parametrize(
    "job_type",
    [jobs.uncancels_for_ever, jobs.swallows_then_cancels, jobs.waits_in_finally, jobs.cancels_then_swallows],
    ids=lambda each: each.name,
)
async def test_time_out_holds_whatever_is_swallowed(handlers: Handlers, job_type: JobType) -> None:
    assert failed(await outcome_of(handlers, job_type, timeout=0.2)) == ("timeout", "TimeoutError")


@pytest.mark.parametrize("culprit", [jobs.cancels_all, jobs.cancels_the_others], ids=lambda each: each.name)
async def test_neighbour_whose_task_another_handler_cancels_is_to_be_done_again(
    handlers: Handlers, culprit: JobType
) -> None:
    neighbour = begin(handlers, jobs.waits)
    await eventually(lambda: jobs.calls)
    waiting = asyncio.create_task(handlers.outcome(neighbour, jobs.waits, 3.0))
    await outcome_of(handlers, culprit)
    async with asyncio.timeout(1):
        with pytest.raises(ExecutionUndone, match="another handler cancelled"):
            await waiting


async def test_cancellation_that_was_asked_for_ends_without_an_outcome(handlers: Handlers) -> None:
    """Also when the handler cancels itself as well."""
    working = begin(handlers, jobs.waits)
    await eventually(lambda: jobs.calls)
    assert working.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(working, 1)
    assert working.cancelled()


@pytest.mark.parametrize("name", jobs.RAISED)
@pytest.mark.parametrize("job_type", [jobs.raises, jobs.araises], ids=lambda each: each.name)
async def test_whatever_is_raised_is_the_jobs_failure(handlers: Handlers, job_type: JobType, name: str) -> None:
    # A coroutine cannot raise StopIteration: Python makes it a RuntimeError.
    expected = "RuntimeError" if (job_type.is_async and name == "StopIteration") else name
    assert failed(await outcome_of(handlers, job_type, name=name)) == ("error", expected)


@pytest.mark.parametrize("name", jobs.RAISED)
async def test_loop_goes_on_after_a_callback_that_raises(handlers: Handlers, name: str) -> None:
    assert await outcome_of(handlers, jobs.callback_raises, name=name) == Success("done")


@pytest.mark.parametrize("method", ["stop", "close", "shutdown_default_executor"])
async def test_handler_cannot_end_the_loop_of_all(handlers: Handlers, method: str) -> None:
    neighbour = asyncio.create_task(outcome_of(handlers, jobs.leaves_in_executor))
    assert failed(await outcome_of(handlers, jobs.on_loop, method=method)) == ("error", "RuntimeError")
    assert isinstance(await neighbour, Success)
    assert isinstance(await outcome_of(handlers, jobs.leaves_in_executor), Success)
