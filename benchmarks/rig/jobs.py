"""Job types for measurements."""

import asyncio
import os
import random
import time

from jobtape import Context, job
from jobtape.schemas.retry import RetryPolicy

MAX_ATTEMPTS = 5


@job("add")
def add(x: int, y: int) -> int:
    """No work at all."""
    return x + y


@job("nap")
async def nap(seconds: float) -> float:
    """Takes so long."""
    await asyncio.sleep(seconds)
    return seconds


@job("flaky", retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, first=0.2, factor=2, longest=2))
def flaky(ctx: Context, fails: float, seconds: float) -> str:
    """Takes ``seconds`` and fails with the probability ``fails``. Each execution adds a line to BENCH_EXECUTIONS."""
    with open(os.environ["BENCH_EXECUTIONS"], "a") as lines:  # noqa: PTH123 - short lines are appended whole
        lines.write(f"{ctx.idempotency_key} {ctx.attempt}\n")
    time.sleep(seconds)
    if random.random() < fails:
        raise ConnectionError("the other side did not answer")
    return f"attempt {ctx.attempt}"


@job("blocks")
async def blocks(seconds: float) -> str:
    """Holds its loop up for so long."""
    time.sleep(seconds)  # noqa: ASYNC251 - that is the point
    return "done"
