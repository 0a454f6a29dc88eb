"""Handlers whose results and exceptions have code that fails, and handlers that leave something behind."""

import asyncio
import decimal
from contextvars import ContextVar
from typing import Annotated

from pydantic import BaseModel, PlainValidator

from jobtape import RetryPolicy, job

mark: ContextVar[str] = ContextVar("mark", default="none")
lock = asyncio.Lock()
queue: asyncio.Queue[int] = asyncio.Queue()


def _fail(value: object) -> object:
    if value == "exit":
        raise SystemExit(3)
    raise LookupError("the result's own")


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)


class Result(BaseModel):
    value: Annotated[object, PlainValidator(_fail)]


POLICY = RetryPolicy(max_attempts=2, first=0.01, on=(LookupError, Mute))


def _make(kind: str) -> dict[str, str]:
    if kind == "mute":
        raise Mute
    return {"value": kind}


@job("same.def", retry=POLICY)
def in_thread(kind: str) -> Result:
    return _make(kind)  # type: ignore[return-value]


@job("same.async", retry=POLICY)
async def on_loop(kind: str) -> Result:
    return _make(kind)  # type: ignore[return-value]


@job("same.isolated", retry=POLICY, isolate=True)
def isolated(kind: str) -> Result:
    return _make(kind)  # type: ignore[return-value]


@job("same.aisolated", retry=POLICY, isolate=True)
async def aisolated(kind: str) -> Result:
    return _make(kind)  # type: ignore[return-value]


def _seen() -> list[str | int]:
    seen: list[str | int] = [mark.get(), decimal.getcontext().prec]
    mark.set("changed")
    decimal.getcontext().prec = 5
    return seen


@job("context.def", isolate=True)
def context() -> list[str | int]:
    return _seen()


@job("context.async", isolate=True)
async def acontext() -> list[str | int]:
    return _seen()


@job("loop.keep", isolate=True)
async def keep() -> int:
    """Use a queue and a lock that are bound to a loop, leave a task, and return the number of other tasks found."""
    found = len(asyncio.all_tasks()) - 1
    with_waiter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait(1)
    await with_waiter
    async with lock:
        waiting = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0)
        waiting.cancel()
    asyncio.create_task(asyncio.sleep(600))  # noqa: RUF006
    return found
