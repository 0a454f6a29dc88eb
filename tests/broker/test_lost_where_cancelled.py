"""aiormq cancels who waits for an answer when the connection ends; a task's own cancelling is something else."""

import asyncio

import pytest

from jobtape.broker.link import end, lost_where_cancelled

pytestmark = pytest.mark.anyio


async def wait_for(answer: "asyncio.Future[None]") -> None:
    with lost_where_cancelled():
        await answer


async def test_an_answer_that_is_cancelled_is_a_lost_connection() -> None:
    answer = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(wait_for(answer))
    await asyncio.sleep(0)
    answer.cancel()
    with pytest.raises(ConnectionError, match="the connection was lost"):
        await task


async def test_ones_own_cancelling_stays_what_it_is() -> None:
    task = asyncio.create_task(wait_for(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_swallows_it_once_is_ended_all_the_same() -> None:
    answers: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in range(2)]

    async def stubborn() -> None:
        for answer in answers:
            try:
                await answer
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert all(answer.cancelled() for answer in answers)
