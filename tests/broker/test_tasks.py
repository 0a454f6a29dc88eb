"""aiormq cancels its callers when the connection ends, which differs from a cancellation of the task itself."""

import asyncio

import pytest

from jobtape.broker.tasks import cancel_and_wait, run_all, translate_cancellation

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


async def test_run_all_raises_the_first_error_when_the_others_have_ended() -> None:
    ended: list[str] = []

    async def fail() -> None:
        raise ValueError("no")

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("slow")

    with pytest.raises(ValueError, match="no"):
        await run_all([slow(), fail(), slow()])
    assert ended == ["slow", "slow"]


async def test_run_all_that_is_cancelled_ends_what_it_runs() -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(run_all([slow()]))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_run_all_takes_a_cancelled_answer_for_an_error() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answer.cancel()

    async def ask() -> None:
        await answer

    with pytest.raises(ConnectionError):
        await run_all([ask()])
