"""Handlers that fail, with retry policies."""

import asyncio
import threading
from collections import Counter

from jobtape import Context, Fail, Retry, RetryPolicy, job

SOON = RetryPolicy(max_attempts=5, first=0.2, factor=2, jitter=0)
calls: Counter[tuple[str, int]] = Counter()
"""(job id, attempt) -> how often the handler was called; a test clears it first."""
gate = threading.Event()
"""What ``fails-behind-the-gate`` waits for; open unless a test closes it."""
gate.set()


@job("flaky", retry=SOON)
def flaky(ctx: Context, fails: int) -> str:
    calls[ctx.job_id, ctx.attempt] += 1
    if ctx.attempt <= fails:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return f"attempt {ctx.attempt}"


@job("picky", retry=RetryPolicy(max_attempts=3, first=0.1, on=(OSError,)))
async def picky(error: str) -> None:
    raise {"OSError": OSError, "ConnectionError": ConnectionError, "ValueError": ValueError}[error](error)


@job("slow", timeout=0.2, retry=RetryPolicy(max_attempts=2, first=0.1))
async def slow() -> None:
    await asyncio.sleep(60)


@job("slow-but-fine", timeout=0.2, retry=RetryPolicy(max_attempts=2, first=0.1, on=(ValueError,)))
async def slow_but_fine() -> None:
    await asyncio.sleep(60)


@job("asks", retry=RetryPolicy(max_attempts=3, first=60, longest=60))
def asks(ctx: Context, seconds: float) -> str:
    if ctx.attempt == 1:
        raise Retry(seconds, "the other side is busy")
    return "done"


@job("gives-up", retry=SOON)
async def gives_up() -> None:
    raise Fail("there is no such customer")


@job("never-again")
def never_again(ctx: Context) -> None:
    calls[ctx.job_id, ctx.attempt] += 1
    raise ValueError("once is enough")


@job("fails-behind-the-gate", retry=SOON)
def fails_behind_the_gate(ctx: Context) -> None:
    calls[ctx.job_id, ctx.attempt] += 1
    gate.wait(30)
    raise ConnectionError("no luck")
