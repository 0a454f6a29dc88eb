"""aiormq cancels its callers when the connection ends, which differs from a cancellation of the task itself."""

import asyncio

import pytest

from jobtape.broker.tasks import cancel_and_wait, translate_cancellation

pytestmark = pytest.mark.anyio


async def wait_for(answer: "asyncio.Future[None]") -> None:
    with translate_cancellation():
        await answer


async def test_cancelled_answer_raises_connection_error() -> None:
    answer = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(wait_for(answer))
    await asyncio.sleep(0)
    answer.cancel()
    with pytest.raises(ConnectionError, match="the connection was lost"):
        await task


async def test_cancelled_task_raises_cancelled_error() -> None:
    task = asyncio.create_task(wait_for(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancel_and_wait_ends_task_that_swallows_cancellation() -> None:
    answers: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in range(2)]

    async def stubborn() -> None:
        for answer in answers:
            try:
                await answer
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert all(answer.cancelled() for answer in answers)
