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


@job("upto")
def upto(n: int) -> list[int]:
    return list(range(n))


@job("total")
def total(parts: list[int | None]) -> int:
    return sum(part or 0 for part in parts)


@job("refuse")
def refuse() -> None:
    raise ValueError("always")
