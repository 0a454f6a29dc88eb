"""FastStream's handler, settings and client. ``app`` is what ``faststream run`` takes.

FastStream is no job queue: it has neither results nor delays. Its handler stores the result in Redis itself.
"""

from collections.abc import Sequence
from typing import Any

import redis.asyncio
from faststream import AckPolicy, FastStream
from faststream.rabbit import QueueType, RabbitBroker, RabbitQueue

from benchmarks.peers import client, redis_results

broker = RabbitBroker(client.BROKER, logger=None)
app = FastStream(broker)
queue = (
    RabbitQueue("faststream", queue_type=QueueType.QUORUM, durable=True)
    if client.DURABLE
    else RabbitQueue("faststream")
)
results = redis.asyncio.Redis.from_url(client.REDIS)


async def _add(message: dict[str, Any]) -> int:
    total = client.add(message["x"], message["y"])
    await results.set(f"result-{message['id']}", total, ex=3600)
    return total


policy = {"ack_policy": AckPolicy.NACK_ON_ERROR} if client.DURABLE else {}
broker.subscriber(queue, **policy)(_add)


class FastStreamClient(redis_results.RedisCount):
    """Submits with many publishes under way."""

    async def open(self) -> None:
        """Connect."""
        await broker.connect()
        await broker.declare_queue(queue)  # a message for a queue that is missing is dropped

    async def submit(self, numbers: Sequence[int]) -> list[Any]:
        """Publish a message for each number."""

        async def publish(number: int) -> str:
            name = redis_results.new_id()
            await broker.publish(_message(name, number), queue, persist=client.DURABLE)
            return name

        return await redis_results.gather_some(publish, numbers)

    async def result(self, handle: Any) -> int:
        """Return the stored result of a job, which is there."""
        return int(await results.get(f"result-{handle}"))

    async def call(self, number: int) -> int:
        """Publish and wait for the reply, which comes after the result is stored."""
        name = redis_results.new_id()
        answer = await broker.request(_message(name, number), queue, persist=client.DURABLE, timeout=client.TIMEOUT)
        return int(await answer.decode())


def _message(name: str, number: int) -> dict[str, Any]:
    return {"id": name, "x": number, "y": number}


def make_client() -> client.Client:
    """Return a client."""
    return FastStreamClient()
