"""The jobs of the fault runs: quick ones, and some that last long enough to be killed."""

import asyncio

from jobtape import job


@job("add")
def add(x: int, y: int) -> int:
    return x + y


@job("nap")
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"
