"""Handlers, healthy and faulty."""

import asyncio
import math
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from jobtape import Context, job

gate = threading.Event()
"""What ``hold`` and ``ahold`` wait for; a test that uses them clears it first."""
calls: list[str] = []
"""The job ids of calls, from the handlers that record them."""


@job("add")
def add(x: int, y: int) -> int:
    return x + y


@job("aadd")
async def aadd(x: int, y: int) -> int:
    return x + y


@job("nulls")
def nulls(value: dict[str, Any]) -> dict[str, Any]:
    return value


@job("boom")
def boom(text: str = "bang") -> None:
    raise ValueError(text)


@job("aboom")
async def aboom() -> None:
    raise TimeoutError("the handler's own")


@job("leave")
def leave() -> None:
    sys.exit(3)


@job("aleave")
async def aleave() -> None:
    raise SystemExit(3)


@job("child-leaves")
async def child_leaves() -> None:
    async def child() -> None:
        raise SystemExit(4)

    await asyncio.create_task(child())


@job("cancels-itself")
async def cancels_itself() -> None:
    raise asyncio.CancelledError


@job("too-long", timeout=0.3)
async def too_long() -> None:
    await asyncio.sleep(60)


@job("too-long-thread", timeout=0.3)
def too_long_thread() -> None:
    time.sleep(1)


@job("finishes-late", timeout=0.2)
async def finishes_late() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
    return "done"


@job("heedless", timeout=0.2)
async def heedless() -> None:
    while not gate.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)


@job("blocks")
async def blocks(seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251 - that is the point
    return "done"


@job("big")
def big() -> str:
    return "x" * 2_000_000


@job("not-a-number")
def not_a_number() -> float:
    return math.nan


@job("object")
def an_object() -> Any:
    return object()


@job("wrong-result")
def wrong_result() -> int:
    return "text"  # type: ignore[return-value]


@job("nap")
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@job("hold")
def hold(ctx: Context) -> str:
    calls.append(ctx.job_id)
    gate.wait(30)
    return "held"


@job("ahold")
async def ahold(ctx: Context) -> str:
    calls.append(ctx.job_id)
    await asyncio.to_thread(gate.wait, 30)
    return "held"


@job("note")
def note(ctx: Context) -> None:
    calls.append(ctx.job_id)


@job("steps")
async def steps(ctx: Context, n: int, pause: float) -> None:
    for i in range(1, n + 1):
        ctx.progress(i / n, f"step {i}")
        await asyncio.sleep(pause)


@job("tidies-up")
async def tidies_up() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        calls.append("cancelled")
        await asyncio.to_thread(gate.wait, 30)
        calls.append("tidied up")
        raise


@job("long", timeout=900)
def long() -> None:
    """Its timeout does not fit an acknowledgement timeout of half an hour, which must allow for twice its length."""
