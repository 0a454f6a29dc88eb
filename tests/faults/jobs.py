"""Jobs for fault tests: short ones, and some that take long enough to be killed."""

import asyncio
import time
from pathlib import Path
from typing import Any

from jobtape import Batch, Context, job, step


@job("add")
def add(x: int, y: int) -> int:
    return x + y


@job("nap")
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


@job("gather")
def gather(results: list[int]) -> int:
    return sum(results)


@job("split")
async def split(n: int, ctx: Context) -> Any:
    return ctx.then(gather, [step(add, each, each) for each in range(n)])


broken: Path | None = None
"""The file with the names for which ``model.step`` fails, one a line. ``tests.faults.part`` sets it."""


@job("model.step")
def model_step(name: str, parts: Any = None) -> str:
    if broken is not None and name in broken.read_text().splitlines():
        raise ValueError(name)
    return name


@job("model.items")
def model_items(items: list[dict[str, str]]) -> list[dict[str, str]]:
    return items


@job("refuse")
def refuse() -> None:
    raise ValueError("always")


@job("index", batch=Batch(5, within=0.5))
def index(folder: list[str], n: list[int]) -> list[int | ValueError]:
    """Record the call in the folder, and wait while the folder has a file ``hold``. Every seventh job fails."""
    with Path(folder[0], "calls").open("a") as calls:
        calls.write(f"{len(n)}\n")
    while Path(folder[0], "hold").exists():
        time.sleep(0.01)
    return [each if each % 7 else ValueError("the seventh") for each in n]
