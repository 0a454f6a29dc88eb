"""Closing a link ends, whatever it is doing just then."""

import asyncio

import pytest

from jobtape.broker.link import Link
from tools.processes.ports import free_port

pytestmark = pytest.mark.anyio


async def test_a_link_can_be_closed_at_any_moment_of_an_attempt() -> None:
    """Nobody listens: some of these moments are the very step in which an attempt fails."""
    port = free_port()
    for moment in range(300):
        link = Link(f"amqp://guest:guest@127.0.0.1:{port}/", name="closing")
        link.start()
        for _ in range(moment % 40):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await link.close()
