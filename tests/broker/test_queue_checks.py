"""Looking at queues costs nobody the connection, however it ends."""

import asyncio
import random

import aio_pika
import pytest

from jobtape.broker import declare

pytestmark = pytest.mark.anyio


async def test_looks_that_are_given_up_leave_the_connection_whole(broker_url: str) -> None:
    """Plain calls of aiormq that are cancelled so end it within a second."""
    chance = random.Random(1)
    async with await aio_pika.connect(broker_url) as connection:
        lost: list[object] = []
        connection.close_callbacks.add(lambda *why: lost.append(why))

        async def look() -> None:
            for _ in range(150):
                try:
                    async with asyncio.timeout(chance.uniform(0, 0.004)):
                        assert await declare.depth(connection, "jobtape-no-such-queue") is None
                except TimeoutError:
                    continue

        async def open_and_close() -> None:
            for _ in range(150):
                await (await connection.channel()).close()

        await asyncio.gather(*(look() for _ in range(3)), *(open_and_close() for _ in range(2)))
        assert await declare.depth(connection, "jobtape-no-such-queue") is None
        assert lost == []
