"""``python -m tools.namespace FILE``: takes away from a broker what FILE, a trace of `make run`, says is ours there."""

import asyncio
import sys
from pathlib import Path

from jobtape.broker.declare import remove_namespace
from jobtape.schemas.topology import Topology
from tools.traces import read_trace

LIMIT = 15.0  # seconds


async def remove(path: Path) -> None:
    """Does it. Raises whatever the broker's refusal is, TimeoutError among others."""
    trace = read_trace(path)
    async with asyncio.timeout(LIMIT):
        await remove_namespace(trace.url, Topology(trace.namespace).with_queues(trace.queues))


if __name__ == "__main__":
    asyncio.run(remove(Path(sys.argv[1])))
