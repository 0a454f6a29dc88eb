"""What clients of systems that keep results in Redis share."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import uuid4

import redis

from benchmarks.peers import client

T = TypeVar("T")

_threads = ThreadPoolExecutor(client.THREADS)


class RedisCount:
    """Counts results: the database holds nothing else."""

    def __init__(self) -> None:
        self._redis = redis.Redis.from_url(client.REDIS)

    async def stored(self) -> int:
        """Return how many results are stored."""
        return int(self._redis.dbsize())


async def gather_some(call: Callable[[T], Awaitable[Any]], values: Sequence[T]) -> list[Any]:
    """Call ``call`` for each value, IN_FLIGHT at a time, and return what it returned, in the order of ``values``."""
    answers: list[Any] = [None] * len(values)
    rest = iter(enumerate(values))

    async def work() -> None:
        for n, value in rest:
            answers[n] = await call(value)

    await asyncio.gather(*(work() for _ in range(min(client.IN_FLIGHT, len(values)))))
    return answers


async def in_threads(call: Callable[[T], Any], values: Sequence[T]) -> list[Any]:
    """Call ``call`` for each value in THREADS threads, and return what it returned, in the order of ``values``."""
    if len(values) == 1:
        return [call(values[0])]
    return list(await asyncio.to_thread(_threads.map, call, values))


def until(due: float) -> float:
    """Return the seconds until ``due``, 0 if it has passed."""
    return max(0.0, due - time.time())


def new_id() -> str:
    """Return a new random id."""
    return uuid4().hex
