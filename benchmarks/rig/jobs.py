"""Job types for measurements."""

import asyncio
import os
import random
import time

from benchmarks.peers.client import record_lateness
from jobtape import Context, job
from jobtape.schemas.execution.retry import RetryPolicy

MAX_ATTEMPTS = 5
BUG = os.environ.get("BENCH_BUG") == "1"


def record_execution(line: str) -> None:
    """Append a line to the file BENCH_EXECUTIONS."""
    with open(os.environ["BENCH_EXECUTIONS"], "a") as lines:  # noqa: PTH123 - short lines are appended whole
        lines.write(f"{line}\n")


@job("add")
def add(x: int, y: int) -> int:
    return x + y


@job("upto")
def upto(n: int) -> list[int]:
    return list(range(n))


@job("total")
def total(parts: list[int]) -> int:
    return sum(parts)


@job("nap")
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@job("flaky", retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, first=0.2, factor=2, longest=2))
def flaky(ctx: Context, fails: float, seconds: float) -> str:
    """Take ``seconds``, and fail with the probability ``fails``. Records each execution."""
    record_execution(f"{ctx.idempotency_key} {ctx.attempt}")
    time.sleep(seconds)
    if random.random() < fails:
        raise ConnectionError("no answer")
    return f"attempt {ctx.attempt}"


@job("blocks")
async def blocks(seconds: float) -> str:
    """Block the event loop for ``seconds``."""
    time.sleep(seconds)  # noqa: ASYNC251 - the purpose of this job
    return "done"


@job("second-time")
def second_time(ctx: Context) -> str:
    """Fail in the first run."""
    if ctx.run == 1:
        raise ValueError("not yet")
    return f"run {ctx.run}"


@job("aside", queue="side")
def aside() -> None:
    """Do nothing, on a queue of its own."""


@job("double")
def double(ctx: Context, n: int) -> int:
    """Double ``n``, wrongly for every tenth number when BENCH_BUG is set. Records each execution but shadow runs."""
    if not ctx.shadow:
        record_execution(ctx.idempotency_key)
    return 2 * n + (1 if BUG and n % 10 == 0 else 0)


@job("late")
def late(due: float) -> None:
    """Record how many seconds after ``due`` it was called."""
    record_lateness(due)
