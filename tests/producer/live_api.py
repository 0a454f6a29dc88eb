"""An API without a broker, on a view that the test writes: enough for streams, WebSockets and waiting requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from jobtape.view.store import Store
from tests.producer.jobs import add
from tests.producer.running_api import Api, api, serve, without_broker
from tests.waiting import eventually


@dataclass
class LiveApi:
    """An API that reads ``store``, at ``url``."""

    api: Api
    store: Store
    url: str

    @property
    def listeners(self) -> int:
        return self.api.producer.listeners.now.total()

    async def wait_idle(self) -> None:
        """Wait until there are no listeners and the tail has stopped."""
        await eventually(lambda: self.listeners == 0 and self.api.producer.listeners.tail._task is None)


@asynccontextmanager
async def live_api(store: Store, database_url: str, **more: Any) -> AsyncIterator[LiveApi]:
    async with (
        api(without_broker(database_url, **more), add, ready=False) as served,
        serve(served.app, lifespan="off") as port,
    ):
        try:
            yield LiveApi(served, store, f"http://127.0.0.1:{port}")
        finally:
            served.producer.listeners.end()
