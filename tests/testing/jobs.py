"""Job types for the tests of `jobtape.testing`. Handlers note in ``ran`` what they did."""

import asyncio
from typing import Any

from jobtape import (
    Batch,
    Concurrency,
    Context,
    Debounce,
    Every,
    Fail,
    JobType,
    Options,
    Rate,
    RetryPolicy,
    Signal,
    Unique,
    job,
    step,
)

ran: list[Any] = []


@job("add")
def add(x: int, y: int) -> int:
    ran.append(("add", x, y))
    return x + y


@job("greet")
async def greet(ctx: Context, name: str) -> str:
    ctx.progress(0.5)
    return f"Hello, {name} ({ctx.attempt})"


@job("flaky", retry=RetryPolicy(max_attempts=3, first=60.0, factor=1.0, jitter=0.0))
async def flaky(ctx: Context, fail: int) -> int:
    if ctx.attempt <= fail:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


@job("broken")
def broken() -> None:
    raise Fail("never")


@job("mended")
def mended(ok: str) -> None:
    if ok not in ran:
        raise ValueError("not mended yet")


@job("ordered", ordering_key="key")
async def ordered(key: str, n: int) -> None:
    ran.append((key, n))


@job("limited", limits=[Concurrency(1)])
async def limited(n: int) -> int:
    ran.append(("begin", n))
    await asyncio.sleep(0)
    ran.append(("end", n))
    return n


@job("rated", limits=[Rate(1, per=600)])
async def rated(n: int) -> int:
    return n


@job("once", unique=Unique(by=["order"]))
async def once(order: int) -> int:
    return order


@job("settled", debounce=Debounce(30, by=["doc"]))
async def settled(doc: str, version: int) -> int:
    return version


@job("urgent", queue="lanes", lane="high")
async def urgent() -> None:
    ran.append("high")


@job("patient", queue="lanes", lane="low")
async def patient() -> None:
    ran.append("low")


@job("total")
async def total(parts: list[int]) -> int:
    return sum(parts)


@job("merge")
async def merge(results: list[int]) -> int:
    return sum(results)


@job("fan")
async def fan(ctx: Context, n: int) -> Any:
    return ctx.then(merge, [step(add, x=i, y=i) for i in range(n)])


@job("approved")
async def approved(signal: dict[str, Any] | None) -> str:
    return "late" if signal is None else str(signal["by"])


@job("ask")
async def ask(ctx: Context) -> Any:
    return ctx.then(approved, wait=Signal("approval", timeout=3600), on="done")


@job("parent")
async def parent(ctx: Context) -> str:
    child = await ctx.spawn(add, x=1, y=1, key="child")
    other = await add.submit_with(Options(labels={"by": "parent"}), x=2, y=2)
    return f"{child.id} {other.id}"


@job("tick", schedule=Every(hours=1))
async def tick() -> None:
    ran.append("tick")


@job("many", batch=Batch(10, within=0.01))
async def many(n: list[int]) -> list[int]:
    return [each * 2 for each in n]


@job("alone", isolate=True)
def alone(n: int) -> int:
    return n + 1


ALL: list[JobType[Any]] = [
    add,
    greet,
    flaky,
    broken,
    mended,
    ordered,
    limited,
    rated,
    once,
    settled,
    urgent,
    patient,
    total,
    merge,
    fan,
    approved,
    ask,
    parent,
    tick,
    many,
    alone,
]
