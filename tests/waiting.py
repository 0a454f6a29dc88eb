"""Wait for a condition instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

LIMIT = 20.0
"""Seconds. Much more than needed, for machines under load."""
EVERY = 0.02


@overload
async def eventually(condition: Callable[[], Awaitable[T | None]], timeout: float = LIMIT, *, what: str = "") -> T: ...


@overload
async def eventually(condition: Callable[[], T | None], timeout: float = LIMIT, *, what: str = "") -> T: ...


async def eventually(
    condition: Callable[[], T | Awaitable[T | None] | None], timeout: float = LIMIT, *, what: str = ""
) -> T:
    """Return the first true value of ``condition``, which may be asynchronous. Fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return cast("T", value)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or _source(condition)}")
        await asyncio.sleep(EVERY)


def _source(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except TypeError:  # a partial
        return repr(condition)
