"""An API in this process, and a client of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from jobtape import JobType
from jobtape.app import create_app
from jobtape.cli.parts.serving import EmbeddedServer
from jobtape.process import running
from jobtape.producer.producer import Producer
from jobtape.schemas.topology import Topology
from jobtape.settings import Settings, read_settings
from tests.producer.jobs import add, keep, place
from tests.waiting import eventually

QUEUES = ("default", "orders")


def settings_for(url: str, topology: Topology, database_url: str, **more: Any) -> Settings:
    """Settings for tests, with short times."""
    return read_settings(
        **({"publish_timeout": 5.0, "read_timeout": 10.0} | more),
        rabbitmq_url=url,
        database_url=database_url,
        namespace=topology.namespace,
    )


def without_broker(database_url: str, **more: Any) -> Settings:
    """Settings for an API that only reads the view. A read that needs the broker ends soon."""
    own = {"rabbitmq_url": "amqp://127.0.0.1:1/", "database_url": database_url, "namespace": "none"}
    return read_settings(**{"read_timeout": 0.5, **more, **own})


@dataclass
class Api:
    """An application, its producer, and an HTTP client of it."""

    app: FastAPI
    producer: Producer
    client: httpx.AsyncClient

    async def submit(self, **payload: Any) -> dict[str, Any]:
        """Submit an ``add`` and return the job."""
        answer = await self.client.post("/jobs", json={"type": "add", "payload": payload or {"x": 1}})
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Assert that ``answer`` is a problem of this status and kind, and return it."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:jobtape:problem:{kind}", body
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0
    return body


def running_producer() -> Any:
    """Return the producer of the API or the lifespan that runs in this process."""
    return running.serving().submitter


@asynccontextmanager
async def api(settings: Settings, *job_types: JobType, ready: bool = True, **client: Any) -> AsyncIterator[Api]:
    """Start an API. With ``ready``, wait until it has found broker and tape."""
    app = create_app(settings, job_types or (add, place, keep))
    async with app.router.lifespan_context(app):
        producer = running_producer()
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", timeout=30, **client) as opened:
            if ready:
                await eventually(lambda: producer.watch.tape_fault is None, what="broker and tape are found")
            yield Api(app, producer, opened)


@asynccontextmanager
async def serve(app: FastAPI, **config: Any) -> AsyncIterator[int]:
    """Serve ``app`` on a free port, and return the port."""
    server = EmbeddedServer(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=2, **config))
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started, what="uvicorn listens")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving
