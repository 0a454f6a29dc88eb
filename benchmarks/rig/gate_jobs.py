"""Job types with gates. Each execution appends a line when it begins and when it ends, so lines are in one order."""

import asyncio
import os
import time

from benchmarks.rig.jobs import record_execution
from jobtape import Concurrency, Context, Rate, job


def _record(what: str, ctx: Context, key: str, n: int) -> None:
    record_execution(f"{what} {ctx.job_type} {key} {n} {ctx.fence or 0} {os.getpid()} {time.time():.6f}")


async def _run(ctx: Context, key: str, n: int, seconds: float) -> None:
    _record("begin", ctx, key, n)
    await asyncio.sleep(seconds)
    _record("end", ctx, key, n)


@job("unordered")
async def unordered(ctx: Context, key: str, n: int, seconds: float = 0.0) -> None:
    await _run(ctx, key, n, seconds)


@job("ordered", ordering_key="key")
async def ordered(ctx: Context, key: str, n: int, seconds: float = 0.0) -> None:
    await _run(ctx, key, n, seconds)


@job("limited", limits=[Concurrency(5)])
async def limited(ctx: Context, key: str, n: int, seconds: float = 0.0) -> None:
    await _run(ctx, key, n, seconds)


@job("rated", limits=[Rate(50)])
async def rated(ctx: Context, key: str, n: int, seconds: float = 0.0) -> None:
    await _run(ctx, key, n, seconds)


@job("turns", limits=[Concurrency(5)], take_turns="key")
async def turns(ctx: Context, key: str, n: int, seconds: float = 0.0) -> None:
    await _run(ctx, key, n, seconds)


@job("laned", queue="lanes", lane="low")
async def laned(ctx: Context, key: str, n: int, seconds: float = 0.0) -> None:
    await _run(ctx, key, n, seconds)


@job("tick")
def tick() -> None:
    """Do nothing."""
