"""Celery's job, settings and client."""

from collections.abc import Sequence
from typing import Any

from celery import Celery

from benchmarks.peers import client, redis_results

app = Celery("bench", broker=client.BROKER, backend=client.REDIS)
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_hijack_root_logger = False
if client.DURABLE:
    app.conf.task_default_queue_type = "quorum"
    app.conf.task_acks_late = True
    app.conf.task_reject_on_worker_lost = True
    app.conf.broker_transport_options = {"confirm_publish": True}

add = app.task(name="add")(client.add)
late = app.task(name="late")(client.record_lateness)


class CeleryClient(redis_results.RedisCount):
    """Submits from some threads, as a web process does."""

    async def open(self) -> None:
        """Connect."""

    async def submit(self, numbers: Sequence[int]) -> list[Any]:
        """Submit ``add(n, n)`` for each number."""
        return await redis_results.in_threads(lambda number: add.delay(number, number), numbers)

    async def submit_due(self, due: Sequence[float]) -> None:
        """Submit ``late`` for each due time, with ``countdown``."""
        await redis_results.in_threads(lambda each: late.apply_async((each,), countdown=redis_results.until(each)), due)

    async def result(self, handle: Any) -> int:
        """Wait for the result of a job."""
        return int(handle.get(timeout=client.TIMEOUT))

    async def call(self, number: int) -> int:
        """Submit and wait: Redis notifies the client."""
        return await self.result(add.delay(number, number))


def make_client() -> client.Client:
    """Return a client."""
    return CeleryClient()
