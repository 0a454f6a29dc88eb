"""Handlers that do not end before ``gate`` is set, and healthy ones."""

import asyncio
import threading
import time
from contextlib import suppress

from jobtape import Context, job

gate = threading.Event()
calls: list[str] = []
"""The names of the job types whose handlers were called."""


@job("aspin")
async def aspin(ctx: Context) -> None:
    calls.append(ctx.job_type)
    while not gate.is_set():
        pass


@job("ablock")
async def ablock(ctx: Context) -> None:
    calls.append(ctx.job_type)
    gate.wait()


@job("child-spins")
async def child_spins(ctx: Context) -> None:
    calls.append(ctx.job_type)

    async def child() -> None:
        gate.wait()

    await asyncio.create_task(child())


@job("spin")
def spin(ctx: Context) -> None:
    calls.append(ctx.job_type)
    while not gate.is_set():
        pass


@job("sleep")
def sleep(ctx: Context) -> None:
    calls.append(ctx.job_type)
    gate.wait()


@job("heedless")
async def heedless(ctx: Context) -> None:
    calls.append(ctx.job_type)
    while not gate.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@job("pause")
async def pause(ctx: Context, seconds: float) -> str:
    calls.append(ctx.job_type)
    await asyncio.sleep(seconds)
    return "rested"


@job("blocks-for")
async def blocks_for(ctx: Context, seconds: float) -> str:
    calls.append(ctx.job_type)
    time.sleep(seconds)  # noqa: ASYNC251 - that is the point
    return "done"


@job("quick")
def quick(ctx: Context) -> str:
    calls.append(ctx.job_type)
    return "done"


@job("one-at-a-time", concurrency=1, timeout=1)
async def one_at_a_time(ctx: Context) -> None:
    calls.append(ctx.job_type)
    await asyncio.to_thread(gate.wait, 30)


@job("two-at-a-time", concurrency=2)
def two_at_a_time(ctx: Context) -> None:
    calls.append(ctx.job_type)
    gate.wait(30)


@job("grab")
def grab(ctx: Context, mebibytes: int) -> int:
    calls.append(ctx.job_type)
    return len(bytearray(mebibytes * 2**20))


@job("agrab")
async def agrab(ctx: Context, mebibytes: int) -> int:
    calls.append(ctx.job_type)
    return len(bytearray(mebibytes * 2**20))
