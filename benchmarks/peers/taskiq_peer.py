"""Taskiq's job, settings and client. ``broker`` is what ``taskiq worker`` takes."""

from collections.abc import Sequence
from typing import Any

from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue
from taskiq_redis import RedisAsyncResultBackend

from benchmarks.peers import client, redis_results

CHECK = 0.001 if client.DURABLE else 0.2
"""Seconds between two looks for a result; the library's default is 0.2."""

# Quorum queues, persistent messages, confirms and acknowledgement after the result is stored are its defaults.
broker = AioPikaBroker(client.BROKER, delay_queue=Queue(name="taskiq.delay"))
broker = broker.with_result_backend(RedisAsyncResultBackend(client.REDIS))


async def _add(x: int, y: int) -> int:
    return client.add(x, y)


async def _late(due: float) -> None:
    client.record_lateness(due)


add = broker.register_task(_add, task_name="add")
late = broker.register_task(_late, task_name="late")


class TaskiqClient(redis_results.RedisCount):
    """Submits with many publishes under way."""

    async def open(self) -> None:
        """Connect."""
        await broker.startup()

    async def submit(self, numbers: Sequence[int]) -> list[Any]:
        """Submit ``add(n, n)`` for each number."""
        return await redis_results.gather_some(lambda number: add.kiq(number, number), numbers)

    async def submit_due(self, due: Sequence[float]) -> None:
        """Submit ``late`` for each due time: a message that expires in the delay queue."""
        await redis_results.gather_some(
            lambda each: late.kicker().with_labels(delay=redis_results.until(each)).kiq(each), due
        )

    async def result(self, handle: Any) -> int:
        """Wait for the result of a job."""
        found = await handle.wait_result(check_interval=CHECK, timeout=client.TIMEOUT)
        return int(found.return_value)

    async def call(self, number: int) -> int:
        """Submit and wait: the library looks again and again."""
        return await self.result(await add.kiq(number, number))


def make_client() -> client.Client:
    """Return a client."""
    return TaskiqClient()
