"""Jobs for what is put right: one that fails until it is redriven, and one on a queue of its own."""

import asyncio

from jobtape import Context, job


@job("second-time")
async def second_time(ctx: Context) -> str:
    """Fails in its first run."""
    if ctx.run == 1:
        raise ValueError("not yet")
    return f"run {ctx.run}"


@job("here")
async def here() -> None:
    await asyncio.sleep(0.01)


@job("aside", queue="side")
async def aside() -> None:
    await asyncio.sleep(0.01)
