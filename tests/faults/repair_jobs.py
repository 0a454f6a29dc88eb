"""A job that fails until it is redriven, and jobs on two queues."""

import asyncio

from jobtape import Context, job


@job("second-time")
async def second_time(ctx: Context) -> str:
    """Fail in the first run."""
    if ctx.run == 1:
        raise ValueError("not yet")
    return f"run {ctx.run}"


@job("here")
async def here() -> None:
    await asyncio.sleep(0.01)


@job("aside", queue="side")
async def aside() -> None:
    await asyncio.sleep(0.01)
