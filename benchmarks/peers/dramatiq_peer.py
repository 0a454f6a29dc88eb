"""Dramatiq's job, settings and client. ``broker`` is what ``dramatiq`` on the command line takes."""

from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers import client, redis_results

# Dramatiq has no option for the type of its queues: the virtual host of the durable mode makes them quorum queues.
broker = RabbitmqBroker(url=client.BROKER, confirm_delivery=client.DURABLE)
broker.add_middleware(Results(backend=RedisBackend(url=client.REDIS)))
dramatiq.set_broker(broker)

add = dramatiq.actor(client.add, actor_name="add", store_results=True)
late = dramatiq.actor(client.record_lateness, actor_name="late")


class DramatiqClient(redis_results.RedisCount):
    """Submits from some threads, as a web process does."""

    async def open(self) -> None:
        """Connect."""

    async def submit(self, numbers: Sequence[int]) -> list[Any]:
        """Submit ``add(n, n)`` for each number."""
        return await redis_results.in_threads(lambda number: add.send(number, number), numbers)

    async def submit_due(self, due: Sequence[float]) -> None:
        """Submit ``late`` for each due time, with ``delay``."""
        await redis_results.in_threads(
            lambda each: late.send_with_options(args=(each,), delay=int(1000 * redis_results.until(each))), due
        )

    async def result(self, handle: Any) -> int:
        """Wait for the result of a job."""
        return int(handle.get_result(block=True, timeout=int(1000 * client.TIMEOUT)))

    async def call(self, number: int) -> int:
        """Submit and wait: Redis blocks until the result is there."""
        return await self.result(add.send(number, number))


def make_client() -> client.Client:
    """Return a client."""
    return DramatiqClient()
