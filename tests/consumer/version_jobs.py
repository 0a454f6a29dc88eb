"""One job type in each way of running, whose payload has come to version 2: a list where there was one name."""

from typing import Any

from jobtape import Context, RetryPolicy, job


def one_becomes_some(payload: dict[str, Any]) -> dict[str, Any]:
    payload["names"] = [payload.pop("name")]
    return payload


NEW: dict[str, Any] = {"version": 2, "upcasters": {1: one_becomes_some}}


@job("greet.async", **NEW)
async def greet_async(names: list[str]) -> str:
    return f"hello {' and '.join(names)}"


@job("greet.thread", **NEW)
def greet_thread(names: list[str]) -> str:
    return f"hello {' and '.join(names)}"


@job("greet.process", isolate=True, **NEW)
def greet_process(names: list[str]) -> str:
    return f"hello {' and '.join(names)}"


@job("greet.second", retry=RetryPolicy(max_attempts=2, first=0.05), **NEW)
async def greet_second(ctx: Context, names: list[str]) -> str:
    """Fails at first."""
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return f"hello {' and '.join(names)}"


@job("greet.async")
async def old_greet(name: str) -> str:
    """As it was in version 1."""
    return f"hello {name}"
