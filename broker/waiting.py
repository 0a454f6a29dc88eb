"""Waiting for one thing or another."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_for_stop(stop: asyncio.Event, seconds: float) -> bool:
    """Wait until ``stop`` is set, at most so many seconds; whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; a cancellation waits until it has ended, since in the middle of a call to the broker it
    may cost the connection (see ``broker.declare.depth``). A second one leaves it to itself.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
    return task.result()


async def first_of(work: Coroutine[Any, Any, T], *events: asyncio.Event) -> T | None:
    """The result of ``work``, or None (and ``work`` is cancelled) when one of ``events`` comes first."""
    task = asyncio.ensure_future(work)
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait([task, *waits], return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for pending in (task, *waits):
            pending.cancel()
        await asyncio.gather(task, *waits, return_exceptions=True)
