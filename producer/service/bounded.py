"""A time limit that holds even when what it limits does not end when cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; TimeoutError after ``seconds``.

    ``asyncio.timeout`` waits for the clean-up of what it cancels, and closing a channel over a connection that has
    become a black hole takes until the heartbeat notices.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(_forget)
            task.cancel()
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if task.cancelled():  # by aiormq, which does that to whatever waits for an answer when the connection goes
        raise ConnectionError("the connection was lost")
    return task.result()


def _forget(task: "asyncio.Future[Any]") -> None:
    """Nobody waits for it any more: take its error, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()
