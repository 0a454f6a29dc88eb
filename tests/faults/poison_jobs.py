"""Jobs that kill their worker, and jobs that succeed."""

import asyncio
import os

from jobtape import job


@job("poison")
def poison() -> None:
    os._exit(1)


@job("apoison")
async def apoison() -> None:
    os._exit(1)


@job("good")
def good(n: int) -> int:
    return n


@job("agood")
async def agood(n: int) -> int:
    await asyncio.sleep(0.01)
    return n
