"""A long job that only waits and reports its progress."""

import asyncio
import time
from typing import Annotated

from pydantic import BaseModel, Field

from jobtape import Context, job

STEPS = 10


class Slept(BaseModel):
    """The duration in seconds, as measured."""

    seconds: float


@job("sleep.five", timeout=90)
async def sleep_five(ctx: Context, seconds: Annotated[float, Field(gt=0, le=60)] = 5.0) -> Slept:
    """Wait for ``seconds`` (five by default, sixty at most), with progress after each tenth."""
    begun = time.monotonic()
    for step in range(1, STEPS + 1):
        # Sleep until a point in time, so that delays of ten wake-ups do not add up.
        await asyncio.sleep(max(0.0, begun + seconds * step / STEPS - time.monotonic()))
        ctx.progress(step / STEPS, f"{seconds * step / STEPS:.1f} of {seconds:.1f} s")
    return Slept(seconds=time.monotonic() - begun)
