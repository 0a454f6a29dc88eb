"""Waits for asyncio tasks and events, and cancels tasks reliably."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")
CANCEL_AGAIN: Final = 0.5
"""Seconds between two cancellations of one task."""


async def wait_for_stop(stop: asyncio.Event, seconds: float) -> bool:
    """Wait until ``stop`` is set, at most so many seconds. Return whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


async def first_of(work: Coroutine[Any, Any, T], *events: asyncio.Event) -> T | None:
    """Return the result of ``work``, or cancel it and return None when one of ``events`` is set first."""
    task = asyncio.ensure_future(work)
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait([task, *waits], return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for pending in (task, *waits):
            pending.cancel()
        await asyncio.gather(task, *waits, return_exceptions=True)


async def finish_before_cancel(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``. A cancellation waits until it has ended, because a call to the broker that is
    cancelled halfway may cost the connection (see ``declare.depth``). A second cancellation does not wait.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await asyncio.wait({task})
        ignore_error(task)
        raise
    return task.result()


def ignore_error(task: "asyncio.Future[Any]") -> None:
    """Read the error of a task that nothing awaits any more, so that asyncio does not log it. For a done callback."""
    if not task.cancelled():
        task.exception()


async def cancel_and_wait(task: "asyncio.Task[Any]") -> None:
    """Cancel ``task`` and return when it has ended.

    It is cancelled repeatedly: a task that fails in the very step in which it is cancelled loses the cancellation
    (``wait_for`` before Python 3.12, in aiormq) and would go on forever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN)


async def run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` at the same time, and return when all have ended. After the first error the others are cancelled,
    and the error is raised when none runs any more.

    ``asyncio.gather`` would let the others go on. ``TaskGroup`` would raise a group, and take a task that aiormq has
    cancelled for one that has done its work.
    """
    tasks = [asyncio.create_task(_translated(each)) for each in work]
    if not tasks:
        return
    for task in tasks:
        task.add_done_callback(ignore_error)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is not None]
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            await cancel_and_wait(task)
    for task in failed[:1]:
        task.result()


async def _translated(work: Coroutine[Any, Any, None]) -> None:
    with translate_cancellation():
        await work


@contextmanager
def translate_cancellation() -> Iterator[None]:
    """Raise ConnectionError where aiormq cancels its caller: it does so when the connection ends during a call.

    A cancellation of the task itself stays a CancelledError.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the connection was lost") from None
