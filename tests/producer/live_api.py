"""An API on a view that the test commits into, with no broker: all that those who listen need."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from jobtape.view.store import Store
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, listening, without_broker
from tests.waiting import eventually


@dataclass
class Live:
    """An API that reads ``store``, at ``url``."""

    api: Api
    store: Store
    url: str

    @property
    def listeners(self) -> int:
        return self.api.producer.listeners.now.total()

    async def idle(self) -> None:
        """Until nobody listens any more, and the tail has stopped."""
        await eventually(lambda: self.listeners == 0 and self.api.producer.listeners.tail._task is None)


@asynccontextmanager
async def live_api(store: Store, database_url: str, **more: Any) -> AsyncIterator[Live]:
    async with (
        api(without_broker(database_url, **more), add, ready=False) as served,
        listening(served.app, lifespan="off") as port,
    ):
        try:
            yield Live(served, store, f"http://127.0.0.1:{port}")
        finally:
            served.producer.listeners.end()
