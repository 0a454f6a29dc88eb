"""Each execution has a context of its own, without anything that an earlier one set."""

import asyncio
import decimal

import pytest

from jobtape.consumer.outcome import Success
from jobtape.consumer.worker.handlers.handlers import Handlers
from tests.consumer import unruly_jobs as jobs
from tests.consumer.worker.test_handler_cancellation import handlers, outcome_of

pytestmark = pytest.mark.anyio

__all__ = ["handlers"]

CLEAN = ["nothing", "28"]


async def test_thread_has_nothing_of_earlier_executions(handlers: Handlers) -> None:
    """Context variables, the decimal context, thread-local values and the thread's event loop."""
    for _ in range(8):  # more than there are slots
        assert await outcome_of(handlers, jobs.leaves_in_thread) == Success([*CLEAN, "nothing", "none"])


async def test_task_has_nothing_of_earlier_executions(handlers: Handlers) -> None:
    """Executions run one after the other, and at the same time."""
    for _ in range(2):
        outcomes = await asyncio.gather(*(outcome_of(handlers, jobs.leaves_on_loop) for _ in range(4)))
        assert outcomes == [Success(CLEAN)] * 4


async def test_handler_has_nothing_of_worker_context(handlers: Handlers) -> None:
    """A copy of the context would refer to the same decimal context."""
    with decimal.localcontext() as here:
        here.prec = 7
        jobs.note.set("the worker's")
        assert await outcome_of(handlers, jobs.leaves_on_loop) == Success(CLEAN)
        assert (await outcome_of(handlers, jobs.leaves_in_thread)) == Success([*CLEAN, "nothing", "none"])
        assert (decimal.getcontext().prec, jobs.note.get()) == (7, "the worker's")


async def test_executor_thread_has_nothing_of_earlier_executions(handlers: Handlers) -> None:
    """Functions in these threads run in a copy of the handler's context."""
    for _ in range(8):
        assert await outcome_of(handlers, jobs.leaves_in_executor) == Success([*CLEAN, *CLEAN, "nothing"])


async def test_own_loop_in_thread_has_nothing_of_earlier_executions(handlers: Handlers) -> None:
    for _ in range(4):
        assert await outcome_of(handlers, jobs.own_loop) == Success(CLEAN)


async def test_handler_context_is_copied_to_executor_threads(handlers: Handlers) -> None:
    assert await outcome_of(handlers, jobs.hands_on) == Success(["mine", "mine"])
