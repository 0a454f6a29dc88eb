"""Jobs for fault tests: short ones, and some that take long enough to be killed."""

import asyncio

from jobtape import job


@job("add")
def add(x: int, y: int) -> int:
    return x + y


@job("nap")
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"
