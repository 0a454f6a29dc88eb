"""Times an example test in memory: an installation begins, a job is submitted and runs, and everything ends.

    .venv/bin/python -m benchmarks.checks.example_test [--times 50]

Prints the time by the clock and the processor time of this process, without the first installation, which makes the
tables. Fails only if the job does.
"""

import argparse
import asyncio
import statistics
import sys
import time

from jobtape import job
from jobtape.testing import memory, run


@job("hello")
async def hello(name: str) -> str:
    """Return a greeting."""
    return f"Hello, {name}"


async def example() -> None:
    """The test that is timed."""
    async with memory([hello]) as jt:
        submitted = await hello.submit(name="Ada")
        jt.assert_submitted(hello, name="Ada")
        await jt.drain()
        assert jt[submitted].result == "Hello, Ada"


def main() -> int:
    """Run the check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    times: int = parser.parse_args().times
    began = time.perf_counter()
    asyncio.run(example())
    print(f"first installation of a process: {(time.perf_counter() - began) * 1000:.0f} ms")
    wall, processor = [], []
    for _ in range(times):
        at, used = time.perf_counter(), time.process_time()
        asyncio.run(example())
        wall.append(time.perf_counter() - at)
        processor.append(time.process_time() - used)
    _show("memory, by the clock", wall)
    _show("memory, processor", processor)
    alone = []
    for _ in range(times):
        at = time.perf_counter()
        assert run(hello, name="Ada") == "Hello, Ada"
        alone.append(time.perf_counter() - at)
    _show("run, by the clock", alone)
    return 0


def _show(what: str, seconds: list[float]) -> None:
    low, middle, high = (value * 1000 for value in (min(seconds), statistics.median(seconds), max(seconds)))
    print(f"{what}: median {middle:.1f} ms, {low:.1f} to {high:.1f} ms, {len(seconds)} times")


if __name__ == "__main__":
    sys.exit(main())
