"""Subscribes in the background of a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jobtape.consumer.subscriptions.subscription import Subscription
from jobtape.schemas.messages.delivered_event import DeliveredEvent


@asynccontextmanager
async def listening(subscription: Subscription) -> AsyncIterator[list[DeliveredEvent]]:
    """Yield the list of events received so far. What the subscription raises is raised at the end."""
    found: list[DeliveredEvent] = []
    entered = asyncio.Event()

    async def listen() -> None:
        try:
            async with subscription as received:
                entered.set()
                async for each in received:
                    found.append(each)
        finally:
            entered.set()

    task = asyncio.create_task(listen())
    try:
        await entered.wait()
        yield found
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
    if not isinstance(ended, asyncio.CancelledError):
        raise ended if isinstance(ended, BaseException) else AssertionError("it ended")


async def take(subscription: Subscription, n: int) -> list[DeliveredEvent]:
    """Return the first ``n`` events."""
    found: list[DeliveredEvent] = []
    async with asyncio.timeout(20), subscription as received:
        async for each in received:
            found.append(each)
            if len(found) == n:
                break
    return found


def results(received: list[DeliveredEvent]) -> list[Any]:
    """Return the results of the jobs, in the order of the events."""
    return [each.result for each in received]
