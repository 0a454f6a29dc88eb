"""Each execution begins with a context of its own: nothing that an earlier one set is there."""

import asyncio
import decimal

import pytest

from jobtape.consumer.outcome import Success
from jobtape.consumer.worker.handlers import Handlers
from tests.consumer import unruly_jobs as jobs
from tests.consumer.worker.test_handler_cancellation import handlers, outcome_of

pytestmark = pytest.mark.anyio

__all__ = ["handlers"]

CLEAN = ["nothing", "28"]


async def test_threads(handlers: Handlers) -> None:
    """Context variables, the decimal context, thread-local values and the thread's event loop."""
    for _ in range(8):  # more than there are slots
        assert await outcome_of(handlers, jobs.leaves_in_thread) == Success([*CLEAN, "nothing", "none"])


async def test_loop(handlers: Handlers) -> None:
    """One after the other, and at the same time."""
    for _ in range(2):
        outcomes = await asyncio.gather(*(outcome_of(handlers, jobs.leaves_on_loop) for _ in range(4)))
        assert outcomes == [Success(CLEAN)] * 4


async def test_worker_does_not_share_its_context(handlers: Handlers) -> None:
    """A copy of it would refer to the same decimal context."""
    with decimal.localcontext() as here:
        here.prec = 7
        jobs.note.set("the worker's")
        assert await outcome_of(handlers, jobs.leaves_on_loop) == Success(CLEAN)
        assert (await outcome_of(handlers, jobs.leaves_in_thread)) == Success([*CLEAN, "nothing", "none"])
        assert (decimal.getcontext().prec, jobs.note.get()) == (7, "the worker's")


async def test_threads_of_the_loop(handlers: Handlers) -> None:
    """What a handler runs in them has a copy of the handler's context."""
    for _ in range(8):
        assert await outcome_of(handlers, jobs.leaves_in_executor) == Success([*CLEAN, *CLEAN, "nothing"])


async def test_loop_of_its_own_in_a_thread(handlers: Handlers) -> None:
    for _ in range(4):
        assert await outcome_of(handlers, jobs.own_loop) == Success(CLEAN)


async def test_context_of_a_handler_reaches_what_it_runs_in_a_thread(handlers: Handlers) -> None:
    assert await outcome_of(handlers, jobs.hands_on) == Success(["mine", "mine"])
