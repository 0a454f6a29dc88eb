"""Submits jobs to one system, as a process of its own: a measurement sends it commands, and it answers with figures.

    python -m benchmarks.peers.driver benchmarks.peers.celery_peer

Commands and answers are JSON, one in a line. An error ends the process.
"""

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

from benchmarks.peers.client import TIMEOUT, Client, DelayClient

SAMPLE: Final = 50
"""How many results of a run are read back."""
POLL: Final = 0.05
"""Seconds between two counts of what is done."""
TICK: Final = 0.02
"""Seconds between two submissions at a given rate."""


class Driver:
    """Runs commands on a client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._wanted = 0
        self._due = 0.0

    @property
    def _delays(self) -> DelayClient:
        return cast("DelayClient", self._client)  # such commands are sent to systems with delays only (rig.systems)

    async def first(self) -> dict[str, Any]:
        """Wait for the result of a first job, which shows that the system is ready."""
        async with asyncio.timeout(TIMEOUT):
            _check(await self._client.call(1), 1)
        return {}

    async def drain(self, jobs: int) -> dict[str, Any]:
        """Submit jobs, and wait until all results are readable. Return the seconds of both, and of the sum."""
        before = await self._client.stored()
        started = time.monotonic()
        handles = await self._client.submit(range(jobs))
        submitted = time.monotonic() - started
        await self._wait(before + jobs)
        done = time.monotonic() - started
        every = max(1, jobs // SAMPLE)
        for number in range(0, jobs, every):
            _check(await self._client.result(handles[number]), number)
        return {"submitted": submitted, "done": done}

    async def calls(self, count: int) -> dict[str, Any]:
        """Submit jobs one after the other, each after the result of the one before. Return the seconds of each."""
        took = []
        for number in range(count):
            started = time.perf_counter()
            _check(await self._client.call(number), number)
            took.append(time.perf_counter() - started)
        return {"seconds": took}

    async def calls_for(self, seconds: float) -> dict[str, Any]:
        """Same as ``calls``, for a number of seconds."""
        took: list[float] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            took += (await self.calls(1))["seconds"]
        return {"seconds": took}

    async def load(self, rate: float, seconds: float) -> dict[str, Any]:
        """Submit ``rate`` jobs a second for ``seconds``. Return how many it were."""
        started, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - started) < seconds:
            if wanted := round(elapsed * rate) - sent:
                await self._client.submit(range(sent, sent + wanted))
                sent += wanted
            await asyncio.sleep(TICK)
        return {"jobs": sent}

    async def steady(self, rate: float, seconds: float) -> dict[str, Any]:
        """Submit as ``load`` does, and wait until all results are readable. Return how many jobs it were."""
        before = await self._client.stored()
        jobs = (await self.load(rate, seconds))["jobs"]
        await self._wait(before + jobs)
        return {"jobs": jobs}

    async def due(self, times: list[float]) -> dict[str, Any]:
        """Submit jobs for these times, and wait until all have run. Return how late each started, in seconds."""
        before = len(_lateness())
        started = time.monotonic()
        await self._delays.submit_due(times)
        submitted = time.monotonic() - started
        deadline = time.time() + max(0.0, max(times) - time.time()) + TIMEOUT
        late: list[float] = []
        while len(late) < len(times) and time.time() < deadline:
            await asyncio.sleep(POLL)
            late = _lateness()[before:]
        return {"submitted": submitted, "late": late}

    async def queue(self, jobs: int, delay: float | None = None) -> dict[str, Any]:
        """Submit jobs that nothing works off yet, or that are due in ``delay`` seconds. Return the seconds of that."""
        self._wanted = await self._client.stored() + jobs
        self._due = time.time() + (delay or 0.0)
        started = time.monotonic()
        if delay is None:
            await self._client.submit(range(jobs))
        else:
            await self._delays.submit_due([self._due] * jobs)
        return {"submitted": time.monotonic() - started}

    async def finish(self) -> dict[str, Any]:
        """Wait until the jobs of ``queue`` have results. Return the seconds of that, from the first one of them."""
        await asyncio.sleep(max(0.0, self._due - time.time()))
        await self._wait(min(self._wanted, await self._client.stored() + 1))
        started = time.monotonic()
        await self._wait(self._wanted)
        return {"done": time.monotonic() - started}

    async def _wait(self, wanted: int) -> None:
        """Wait until ``wanted`` results are stored. Raises TimeoutError when none is added for TIMEOUT seconds."""
        stored, deadline = -1, 0.0
        while (found := await self._client.stored()) < wanted:
            if found > stored:
                stored, deadline = found, time.monotonic() + TIMEOUT
            elif time.monotonic() > deadline:
                raise TimeoutError(f"{stored} of {wanted} results")
            await asyncio.sleep(POLL)


def _lateness() -> list[float]:
    """Return what jobs have recorded by now."""
    lines = Path(os.environ["BENCH_LATENESS"])
    return [float(each) for each in lines.read_text().split()] if lines.exists() else []


def _check(found: int, number: int) -> None:
    if found != 2 * number:
        raise RuntimeError(f"add({number}, {number}) returned {found}")


async def run(module: str) -> None:
    """Answer commands until the input ends."""
    client: Client = importlib.import_module(module).make_client()
    await client.open()
    driver = Driver(client)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        method: Callable[..., Awaitable[dict[str, Any]]] = getattr(driver, command.pop("do"))
        print(json.dumps(await method(**command)), flush=True)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
    # Threads of a library must not keep the process alive.
    sys.stdout.flush()
    os._exit(0)
