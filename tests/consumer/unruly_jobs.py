"""Handlers that cancel, stop and raise what they should not, and handlers that find what earlier ones have left."""

import asyncio
import contextvars
import decimal
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

from jobtape import Context, JobType, job

calls: list[str] = []
"""The names of the job types whose handlers were called."""
gate = threading.Event()
"""Handlers that must not end by themselves wait for it."""


def _own_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


# --- Cancellations that a handler makes itself -----------------------------------------------------------------------


@job("cancels-task")
async def cancels_task() -> None:
    _own_task().cancel()
    await asyncio.sleep(1)


@job("cancels-with-message")
async def cancels_with_message() -> None:
    _own_task().cancel("enough")
    await asyncio.sleep(1)


@job("cancels-later")
async def cancels_later() -> None:
    asyncio.get_running_loop().call_later(0.02, _own_task().cancel)
    await asyncio.sleep(5)


@job("cancels-twice")
async def cancels_twice() -> None:
    _own_task().cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(1)
    _own_task().cancel()
    await asyncio.sleep(1)


@job("cancels-and-uncancels")
async def cancels_and_uncancels() -> None:
    task = _own_task()
    task.cancel()
    try:
        await asyncio.sleep(1)
    finally:
        task.uncancel()


@job("child-cancels-parent")
async def child_cancels_parent() -> None:
    parent = _own_task()

    async def child() -> None:
        parent.cancel()
        await asyncio.sleep(5)

    await asyncio.create_task(child())


@job("cancels-child")
async def cancels_child() -> None:
    child = asyncio.create_task(asyncio.sleep(5))
    asyncio.get_running_loop().call_soon(child.cancel)
    await child


@job("thread-cancels-task")
async def thread_cancels_task() -> None:
    loop, task = asyncio.get_running_loop(), _own_task()
    threading.Thread(target=lambda: loop.call_soon_threadsafe(task.cancel)).start()
    await asyncio.sleep(5)


@job("closes-its-coroutine")
async def closes_its_coroutine() -> None:
    coroutine: Any = _own_task().get_coro()
    asyncio.get_running_loop().call_soon(coroutine.close)
    await asyncio.Event().wait()


@job("cancels-all")
async def cancels_all() -> None:
    calls.append("cancels-all")
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(5)


@job("cancels-the-others")
async def cancels_the_others() -> str:
    for task in asyncio.all_tasks() - {_own_task()}:
        task.cancel()
    await asyncio.sleep(0.01)
    return "done"


@job("cancels-and-returns")
async def cancels_and_returns() -> str:
    _own_task().cancel()
    return "done"


@job("thread-cancels-its-run")
def thread_cancels_its_run() -> None:
    asyncio.run(cancels_task())


isolated_cancels_task = JobType(cancels_task.function, "isolated-cancels-task", isolate=True)


@job("thread-has-no-task")
def thread_has_no_task() -> None:
    _own_task().cancel()


# --- Cancellations that are swallowed --------------------------------------------------------------------------------


@job("uncancels-for-ever")
async def uncancels_for_ever() -> None:
    while not gate.is_set():
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            _own_task().uncancel()


@job("swallows-then-cancels")
async def swallows_then_cancels() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(5)
    _own_task().cancel()
    await asyncio.sleep(5)


@job("waits-in-finally")
async def waits_in_finally() -> None:
    try:
        await asyncio.sleep(5)
    finally:
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)


@job("cancels-then-swallows")
async def cancels_then_swallows() -> None:
    """Swallow its own cancellation, then wait for that of the timeout."""
    _own_task().cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(1)
    await asyncio.sleep(60)


@job("waits")
async def waits(ctx: Context) -> None:
    calls.append(ctx.job_type)
    await asyncio.sleep(60)


@job("rests")
async def rests(ctx: Context) -> None:
    calls.append(ctx.job_type)
    await asyncio.sleep(0.3)


@job("leaves-a-thread")
async def leaves_a_thread() -> None:
    await asyncio.to_thread(gate.wait)


# --- Exceptions, and the loop itself ---------------------------------------------------------------------------------


class OwnBase(BaseException):
    """Not an Exception."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "CancelledError": asyncio.CancelledError,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration(3),
    "StopAsyncIteration": StopAsyncIteration,
    "OwnBase": OwnBase,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [asyncio.CancelledError(), KeyboardInterrupt()]),
    "TimeoutError": TimeoutError,
}


@job("raises")
def raises(name: str) -> None:
    raise RAISED[name]()


@job("araises")
async def araises(name: str) -> None:
    await asyncio.sleep(0)
    raise RAISED[name]()


@job("callback-raises")
async def callback_raises(name: str) -> str:
    def throw() -> None:
        raise RAISED[name]()

    asyncio.get_running_loop().call_soon(throw)
    await asyncio.sleep(0.01)
    return "done"


@job("on-loop")
async def on_loop(method: str) -> None:
    """Call a method that only the owner of the loop may call."""
    answer = getattr(asyncio.get_running_loop(), method)()
    if isinstance(answer, Awaitable):
        await answer
    await asyncio.sleep(0.01)


@job("callback-blocks")
async def callback_blocks() -> None:
    asyncio.get_running_loop().call_soon(gate.wait)
    await asyncio.sleep(60)


@job("task-blocks-later")
async def task_blocks_later() -> str:
    """Leave a task that blocks the loop after the handler has ended."""

    async def block() -> None:
        await asyncio.sleep(0.05)
        gate.wait()

    left_behind.append(asyncio.create_task(block()))
    return "done"


left_behind: list[asyncio.Task[None]] = []


@job("within-limits")
async def within_limits() -> str:
    """Cancel parts of itself in all the usual ways, and end normally."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(5)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(5), 0.01)
    with anyio.move_on_after(0.01):
        await asyncio.sleep(5)
    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(5))
            group.create_task(araises.function("TimeoutError"))
    child = asyncio.create_task(asyncio.sleep(5))
    child.cancel()
    await asyncio.gather(child, return_exceptions=True)
    return "done"


# --- Context ---------------------------------------------------------------------------------------------------------

note: contextvars.ContextVar[str] = contextvars.ContextVar("note", default="nothing")
local = threading.local()


def _find_and_leave() -> list[str]:
    """Return what an earlier execution has left here, then leave something."""
    try:
        loop = "none" if asyncio.get_event_loop_policy()._local._loop is None else "a loop"  # type: ignore[attr-defined]
    except AttributeError:
        loop = "none"
    seen = [note.get(), str(decimal.getcontext().prec), getattr(local, "value", "nothing"), loop]
    note.set("something")
    decimal.getcontext().prec = 5
    decimal.getcontext().traps[decimal.Inexact] = True
    local.value = "something"
    return seen


@job("leaves-in-thread")
def leaves_in_thread() -> list[str]:
    seen = _find_and_leave()
    asyncio.set_event_loop(asyncio.new_event_loop())
    return seen


@job("leaves-on-loop")
async def leaves_on_loop() -> list[str]:
    return _find_and_leave()[:2]


@job("leaves-in-executor")
async def leaves_in_executor() -> list[str]:
    """Use the loop's own threads in both ways."""
    loop = asyncio.get_running_loop()
    found = [*(await loop.run_in_executor(None, _find_and_leave))[:2], *(await asyncio.to_thread(_find_and_leave))[:2]]
    return [*found, note.get()]


@job("own-loop")
def own_loop() -> list[str]:
    async def find() -> list[str]:
        return _find_and_leave()[:2]

    found = asyncio.run(find())
    _find_and_leave()
    return found


@job("hands-on")
async def hands_on() -> list[str]:
    note.set("mine")
    return [
        await asyncio.get_running_loop().run_in_executor(None, note.get),
        await asyncio.to_thread(note.get),
    ]
