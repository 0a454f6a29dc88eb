"""What a driver needs of each system, and the environment that it shares with the system's workers."""

import os
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

MODE: Final = os.environ.get("BENCH_MODE", "durable")
"""``durable``: quorum queues, persistent messages, confirms, acknowledgement after the result is stored. ``defaults``:
what the library does by itself, with its results stored too."""
DURABLE: Final = MODE == "durable"
BROKER: Final = os.environ.get("BENCH_BROKER", "")
"""The URL of the broker, with the virtual host of the mode."""
REDIS: Final = os.environ.get("BENCH_REDIS", "")
"""The URL of the Redis database that stores the results."""
IN_FLIGHT: Final = 64
"""How many submissions an asynchronous client has under way."""
THREADS: Final = int(os.environ.get("BENCH_THREADS", "8"))
"""How many threads of a client that blocks submit."""
TIMEOUT: Final = 120.0
"""Seconds until a missing result is an error."""


class Client(Protocol):
    """A client of one system. Handles are what ``result`` takes, whatever they are."""

    async def open(self) -> None:
        """Connect."""

    async def submit(self, numbers: Sequence[int]) -> list[Any]:
        """Submit the job ``add(n, n)`` for each number as fast as the system accepts it, and return the handles."""

    async def result(self, handle: Any) -> int:
        """Wait for the result of a job."""

    async def call(self, number: int) -> int:
        """Submit ``add(n, n)`` and wait for its result, as the system does that best."""

    async def stored(self) -> int:
        """Return how many results are readable by now."""


class DelayClient(Client, Protocol):
    """A client of a system that can delay jobs."""

    async def submit_due(self, due: Sequence[float]) -> None:
        """Submit the job ``late(due)`` for each due time (seconds since 1970), to be run then."""


def add(x: int, y: int) -> int:
    """Return the sum: the job that all throughput and latency figures are about."""
    return x + y


def record_lateness(due: float) -> None:
    """Append to the file BENCH_LATENESS how many seconds after ``due`` it was called."""
    line = f"{time.time() - due:.6f}\n"
    with open(os.environ["BENCH_LATENESS"], "a") as lines:  # noqa: PTH123 (short lines are appended whole)
        lines.write(line)
