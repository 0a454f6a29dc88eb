"""Wait for a condition instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast, overload

T = TypeVar("T")

LIMIT = 60.0
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


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer. The time for which this process's threads waited for a processor does not count:
    how busy the machine is says nothing about the program.
    """
    began, before = time.monotonic(), _waits()
    yield
    waited = sum(wait - before.get(thread, 0.0) for thread, wait in _waits().items())
    took = time.monotonic() - began - waited
    assert took < seconds, f"it took {took:.1f} s, and {waited:.1f} s to get a processor"


def _waits() -> dict[str, float]:
    """Return for each thread how long it has waited for a processor; Linux alone says that."""
    found = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # the thread has ended
            found[path.parent.name] = int(path.read_text().split()[1]) / 1e9
    return found


def _source(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except TypeError:  # a partial
        return repr(condition)
