"""Job types whose payload has version 2: a list of names, where version 1 had one name."""

from typing import Any

from jobtape import Context, RetryPolicy, job


def name_to_names(payload: dict[str, Any]) -> dict[str, Any]:
    payload["names"] = [payload.pop("name")]
    return payload


NEW: dict[str, Any] = {"version": 2, "upcasters": {1: name_to_names}}


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
    """Fail the first attempt."""
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return f"hello {' and '.join(names)}"


@job("greet.async")
async def old_greet(name: str) -> str:
    """The handler of version 1."""
    return f"hello {name}"
