"""API processes (``jobtape api``), and clients that repeat their requests."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from jobtape.schemas.topology import Topology
from tests.cli.programs import COMMAND, Program
from tests.namespaces import environment_for
from tests.waiting import eventually
from tools.processes.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
ADD: Mapping[str, Any] = {"type": "add", "payload": {"x": 3, "y": 4}}


class Apis:
    """API processes, which are stopped at the end of ``async with Apis(...) as apis``."""

    def __init__(self, folder: Path, *, topology: Topology, database: str, **variables: str) -> None:
        own = ("JOBTAPE_", "RABBITMQ_", "DATABASE_", "HTTP_PROXY", "http_proxy")
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self._env |= {
            "DATABASE_URL": database,
            "JOBTAPE_JOBS": "tests.faults.jobs",
            "JOBTAPE_APP_DIR": str(ROOT),
            "JOBTAPE_PUBLISH_TIMEOUT": "1",
            "JOBTAPE_IDEMPOTENCY_LEASE": "2",
        }
        self._env |= variables
        self._topology = topology
        self._folder = folder
        self._programs: dict[str, Program] = {}

    async def __aenter__(self) -> "Apis":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(asyncio.to_thread(program.close) for program in self._programs.values()))

    async def start(self, broker_url: str) -> str:
        """Start an API, wait until it is ready, and return its URL."""
        port = free_port()
        env = self._env | environment_for(broker_url, self._topology) | {"JOBTAPE_PORT": str(port)}
        url = f"http://127.0.0.1:{port}"
        self._programs[url] = Program([*COMMAND, "api"], env, self._folder)
        async with httpx.AsyncClient(trust_env=False) as client:

            async def ready() -> bool:
                try:
                    return (await client.get(f"{url}/health/ready", timeout=5)).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready, 60, what=f"the API is ready: {self._programs[url].lines}")
        return url

    async def kill(self, url: str) -> None:
        """Send SIGKILL, and wait until the process has ended."""
        program = self._programs.pop(url)
        program.send(signal.SIGKILL)
        await asyncio.to_thread(program.code)


class Clients:
    """Makes requests with one key; use it with ``async with``."""

    def __init__(self, key: str) -> None:
        self._headers = {"Idempotency-Key": key}
        self._http = httpx.AsyncClient(timeout=30, trust_env=False, limits=httpx.Limits(max_connections=200))

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def post(self, url: str) -> httpx.Response | None:
        """Submit a job; return None when the API was killed."""
        try:
            return await self._http.post(f"{url}/jobs", json=dict(ADD), headers=self._headers)
        except httpx.TransportError:
            return None

    async def until_accepted(self, url: str) -> str:
        """Submit a job until it is accepted, as the answers require, and return its id."""
        while True:
            answer = await self.post(url)
            assert answer is not None
            if answer.status_code == 202:
                job_id: str = answer.json()["id"]
                assert answer.headers["location"] == f"/jobs/{job_id}"
                return job_id
            assert answer.status_code in (409, 503), answer.text
            await asyncio.sleep(min(1.0, float(answer.headers["retry-after"])))

    async def batch(self, url: str, keys: list[str]) -> dict[str, Any] | None:
        """Submit a batch with these keys; return None when the API was killed."""
        items = [dict(ADD) | {"idempotency_key": key} for key in keys]
        try:
            answer = await self._http.post(f"{url}/jobs/batch", json=items)
        except httpx.TransportError:
            return None
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found
